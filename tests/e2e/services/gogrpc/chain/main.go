// chain serve RPC_PORT HTTP_PORT LOG NEXT_RPC_PORT NEXT_HTTP_PORT
// chain drive RPC_PORT HTTP_PORT COUNT CONCURRENCY KIND...
//
// A service that is asked by gRPC and by HTTP, and asks the next one (itself, if it is called leaf) in ways that differ by
// KIND. Whatever is asked has the number of the request that it is asked for in its name, and so has every call: that is
// the truth about parents. With TLS_FOLDER, which has cert.pem and key.pem, gRPC is in TLS. Builds with gRPC-Go from 1.33
// on and Go from 1.18 on.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
)

// SAME is how many methods there are of the kind "same".
const SAME = 40

type bytesCodec struct{}

func (bytesCodec) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (bytesCodec) Name() string { return "bytes" }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

type callLog struct {
	lock sync.Mutex
	file *os.File
}

func (l *callLog) write(what string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	fmt.Fprintf(l.file, "{\"served\": %q}\n", what)
}

type service struct {
	log  *callLog
	rpc  *grpc.ClientConn
	http string
	jobs chan func()
}

// call asks the next service for a leaf by gRPC.
func (s *service) call(what string) {
	in, out := []byte("question"), []byte(nil)
	must(s.rpc.Invoke(context.Background(), "/shop.Chain/leaf-"+what, &in, &out))
}

func (s *service) get(what string) {
	response, err := http.Get(s.http + "/leaf-" + what)
	must(err)
	_, err = io.Copy(io.Discard, response.Body)
	must(err)
	response.Body.Close()
}

func (s *service) together(what string, ask func(string), calls int) {
	var all sync.WaitGroup
	for i := 0; i < calls; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			ask(fmt.Sprintf("%s-%d", what, i))
		}(i)
	}
	all.Wait()
}

func (s *service) handle(name string) {
	s.log.write(name)
	kind, number := name, ""
	if dash := strings.IndexByte(name, '-'); dash >= 0 {
		kind, number = name[:dash], name[dash+1:]
	}
	switch kind {
	case "direct":
		s.call(number)
	case "twice":
		s.call(number + "-0")
		s.call(number + "-1")
	case "http":
		s.get(number)
	case "both":
		s.get(number + "-0")
		s.call(number + "-1")
	case "child":
		s.together(number, s.call, 3)
	case "childhttp":
		s.together(number, s.get, 2)
	case "grandchild":
		// The goroutine in between makes a call, too: so it is known whose child it is.
		s.together(number, func(what string) {
			s.call(what)
			s.together(what, s.call, 2)
		}, 2)
	case "worker":
		done := make(chan bool)
		s.jobs <- func() {
			s.call(number)
			close(done)
		}
		<-done
	case "late":
		// Goes on after the answer: while others are served.
		go func() {
			time.Sleep(20 * time.Millisecond)
			s.call(number)
		}()
	}
}

func (s *service) stream(_ interface{}, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var message []byte
	for {
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	s.handle(method[strings.LastIndexByte(method, '/')+1:])
	return stream.SendMsg(&message)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handle(strings.TrimPrefix(r.URL.Path, "/"))
	io.WriteString(w, "answer")
}

func dial(port string) *grpc.ClientConn {
	security := grpc.WithInsecure()
	if folder := os.Getenv("TLS_FOLDER"); folder != "" {
		trusted, err := credentials.NewClientTLSFromFile(folder+"/cert.pem", "localhost")
		must(err)
		security = grpc.WithTransportCredentials(trusted)
	}
	connection, err := grpc.Dial("127.0.0.1:"+port, security,
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("bytes"), grpc.WaitForReady(true)))
	must(err)
	return connection
}

func serve(arguments []string) {
	file, err := os.OpenFile(arguments[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(err)
	s := &service{
		log:  &callLog{file: file},
		rpc:  dial(arguments[3]),
		http: "http://127.0.0.1:" + arguments[4],
		jobs: make(chan func()),
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 100
	for i := 0; i < 4; i++ {
		go func() {
			for job := range s.jobs {
				job()
			}
		}()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+arguments[0])
	must(err)
	var options []grpc.ServerOption
	if workers, _ := strconv.Atoi(os.Getenv("STREAM_WORKERS")); workers > 0 {
		options = append(options, grpc.NumStreamWorkers(uint32(workers)))
	}
	if folder := os.Getenv("TLS_FOLDER"); folder != "" {
		own, err := credentials.NewServerTLSFromFile(folder+"/cert.pem", folder+"/key.pem")
		must(err)
		options = append(options, grpc.Creds(own))
	}
	options = append(options, grpc.UnknownServiceHandler(s.stream))
	go func() { must(http.ListenAndServe("127.0.0.1:"+arguments[1], s)) }()
	must(grpc.NewServer(options...).Serve(listener))
}

func drive(arguments []string) {
	rpc, web := dial(arguments[0]), "http://127.0.0.1:"+arguments[1]
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 100
	count, err := strconv.Atoi(arguments[2])
	must(err)
	concurrency, err := strconv.Atoi(arguments[3])
	must(err)
	kinds := arguments[4:]
	seconds, _ := strconv.ParseFloat(os.Getenv("PAUSE"), 64)
	if os.Getenv("WARM") != "" {
		in, out := []byte("question"), []byte(nil)
		must(rpc.Invoke(context.Background(), "/shop.Chain/leaf-1000000", &in, &out))
	}
	jobs := make(chan int)
	var workers sync.WaitGroup
	for i := 0; i < concurrency; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := range jobs {
				kind := kinds[number%len(kinds)]
				if kind == "same" {
					// The message has a size of its own for each of a few methods.
					in, out := make([]byte, number%SAME), []byte(nil)
					must(rpc.Invoke(context.Background(), fmt.Sprintf("/shop.Chain/leaf-%d", number%SAME), &in, &out))
				} else if strings.HasPrefix(kind, "web/") {
					response, err := http.Get(fmt.Sprintf("%s/%s-%d", web, kind[4:], number))
					must(err)
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				} else {
					in, out := []byte("question"), []byte(nil)
					must(rpc.Invoke(context.Background(), fmt.Sprintf("/shop.Chain/%s-%d", kind, number), &in, &out))
				}
				time.Sleep(time.Duration(seconds * float64(time.Second)))
			}
		}()
	}
	for number := 0; number < count; number++ {
		jobs <- number
	}
	close(jobs)
	workers.Wait()
	time.Sleep(200 * time.Millisecond)
}

func main() {
	encoding.RegisterCodec(bytesCodec{})
	if os.Args[1] == "serve" {
		serve(os.Args[2:])
	}
	drive(os.Args[2:])
}
