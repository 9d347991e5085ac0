// An HTTPS/1.1 server whose every answer has 1 kB: `server PORT FOLDER`; FOLDER holds cert.pem and key.pem.
package main

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := []byte(strings.Repeat("x", 1024))
	server := http.Server{
		Addr:         "127.0.0.1:" + os.Args[1],
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0), // of clients that only look at the port
		Handler: http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
			writer.Write(body)
		}),
	}
	log.Fatal(server.ListenAndServeTLS(os.Args[2]+"/cert.pem", os.Args[2]+"/key.pem"))
}
