// An HTTPS/1.1 client that never asks for a handshake, so that its first write makes it, once the file GO exists:
// `lazy_tls_go PORT FOLDER CONNECTIONS GO`. Two requests on each connection, one connection after the other.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	port, folder := os.Args[1], os.Args[2]
	connections, _ := strconv.Atoi(os.Args[3])
	certificate, err := os.ReadFile(folder + "/cert.pem")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	for _, err := os.Stat(os.Args[4]); err != nil; _, err = os.Stat(os.Args[4]) {
		time.Sleep(20 * time.Millisecond)
	}
	for i := 0; i < connections; i++ {
		plain, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			log.Fatal(err)
		}
		connection := tls.Client(plain, &tls.Config{RootCAs: pool, ServerName: "localhost"})
		reader := bufio.NewReader(connection)
		for _, size := range []int{1, 20000} {
			fmt.Fprintf(connection, "GET /lazy/%d/%d HTTP/1.1\r\nHost: localhost:%s\r\n\r\n", i, size, port)
			answer, err := http.ReadResponse(reader, nil)
			if err != nil {
				log.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
		}
		connection.Close()
	}
}
