// gohttp PORT LOG [BACKEND]: a net/http server. It logs each request's path; /call/... asks BACKEND for the same path
// first, with a client that all requests share, from a goroutine of its own.
package main

import (
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"sync"
	"time"
)

func main() {
	log, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	var lock sync.Mutex
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	call := func(path string, status chan int) {
		response, err := client.Get("http://127.0.0.1:" + os.Args[3] + path)
		if err != nil {
			status <- http.StatusBadGateway
			return
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		status <- response.StatusCode
	}
	http.HandleFunc("/", func(writer http.ResponseWriter, request *http.Request) {
		received, _ := io.Copy(io.Discard, request.Body)
		time.Sleep(time.Duration(rand.Intn(5)) * time.Millisecond)
		status := make(chan int, 1)
		status <- http.StatusOK
		if len(os.Args) > 3 {
			<-status
			go call(request.URL.Path, status)
		}
		code := <-status
		lock.Lock()
		fmt.Fprintf(log, "{\"method\":%q,\"path\":%q,\"status\":%d,\"received\":%d}\n", request.Method, request.URL.Path,
			code, received)
		lock.Unlock()
		writer.WriteHeader(code)
		writer.Write(make([]byte, rand.Intn(20000)))
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
