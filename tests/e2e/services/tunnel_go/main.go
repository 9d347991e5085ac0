// HTTPS through a proxy that speaks TLS itself, all tunnels at once, once the file GO exists:
// `tunnel_go PROXY_PORT PORT FOLDER TUNNELS GO`.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	proxy, port, folder := os.Args[1], os.Args[2], os.Args[3]
	tunnels, _ := strconv.Atoi(os.Args[4])
	certificate, err := os.ReadFile(folder + "/cert.pem")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	through, _ := url.Parse("https://localhost:" + proxy)
	for _, err := os.Stat(os.Args[5]); err != nil; _, err = os.Stat(os.Args[5]) {
		time.Sleep(20 * time.Millisecond)
	}
	var all sync.WaitGroup
	for tunnel := 0; tunnel < tunnels; tunnel++ {
		all.Add(1)
		go func(tunnel int) {
			defer all.Done()
			client := http.Client{Transport: &http.Transport{
				Proxy:           func(*http.Request) (*url.URL, error) { return through, nil },
				TLSClientConfig: &tls.Config{RootCAs: pool},
			}}
			for _, size := range []int{1, 20000} {
				answer, err := client.Get(fmt.Sprintf("https://localhost:%s/through/%d/%d", port, tunnel, size))
				if err != nil {
					log.Fatal(err)
				}
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
			client.CloseIdleConnections()
		}(tunnel)
	}
	all.Wait()
}
