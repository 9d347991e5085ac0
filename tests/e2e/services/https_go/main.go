// A Go HTTPS/1.1 server that passes each request on by HTTPS: `https_go PORT FOLDER LOG BACKEND_PORT`.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"sync"
)

type entry struct {
	Path string `json:"path"`
	Peer int    `json:"peer"`
	Port int    `json:"port"`
}

func portOf(address string) int {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(text)
	return port
}

func main() {
	port, folder, backend := os.Args[1], os.Args[2], os.Args[4]
	file, err := os.Create(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	certificate, err := os.ReadFile(folder + "/cert.pem")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	// A transport with a configuration of its own speaks HTTP/1.1 only, and so does a server with no next protocols.
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, ServerName: "localhost"},
		MaxIdleConnsPerHost: 64,
	}}
	encoder := json.NewEncoder(file)
	var lock sync.Mutex
	handler := func(response http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		done := entry{Path: request.URL.Path, Peer: portOf(request.RemoteAddr)}
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			done.Port = portOf(info.Conn.LocalAddr().String())
		}}
		call, _ := http.NewRequest("GET", "https://127.0.0.1:"+backend+request.URL.String(), nil)
		answer, err := client.Do(call.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
		if err != nil {
			http.Error(response, err.Error(), 502)
			return
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		response.Header().Set("Content-Length", strconv.Itoa(len(body)))
		response.Write(body)
		lock.Lock()
		encoder.Encode(done)
		lock.Unlock()
	}
	server := &http.Server{
		Addr:         "127.0.0.1:" + port,
		Handler:      http.HandlerFunc(handler),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	log.Fatal(server.ListenAndServeTLS(folder+"/cert.pem", folder+"/key.pem"))
}
