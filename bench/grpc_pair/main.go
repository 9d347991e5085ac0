// grpc_pair server PORT
// grpc_pair client PORT SECONDS CONCURRENCY
//
// A gRPC-Go pair for `make bench`: unary calls of 100 bytes, answered with 1,000. The client keeps CONCURRENCY calls
// open on one connection, for a second that is not measured and SECONDS that are, and prints
// "RESULT measured-calls microseconds p50-us p99-us failed-calls all-calls".
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	method       = "/bench.Pair/Get"
	requestSize  = 100
	responseSize = 1000
	warmUp       = time.Second
)

type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (bytesCodec) Name() string { return "bytes" }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func serve(port string) {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	must(err)
	answer := make([]byte, responseSize)
	get := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var request []byte
		return &answer, decode(&request)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Pair",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: get}},
	}, struct{}{})
	must(server.Serve(listener))
}

// What one worker saw of the time that is measured, and of all of it.
type tally struct {
	latencies   []time.Duration
	failed, all int
}

func work(connection *grpc.ClientConn, from, until time.Time) (seen tally) {
	request := make([]byte, requestSize)
	for {
		began := time.Now()
		if began.After(until) {
			return seen
		}
		var answer []byte
		err := connection.Invoke(context.Background(), method, &request, &answer)
		seen.all++
		if err != nil || len(answer) != responseSize {
			seen.failed++
		} else if began.After(from) {
			seen.latencies = append(seen.latencies, time.Since(began))
		}
	}
}

func load(port string, seconds, concurrency int) {
	connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	must(err)
	from := time.Now().Add(warmUp)
	until := from.Add(time.Duration(seconds) * time.Second)
	tallies := make([]tally, concurrency)
	var workers sync.WaitGroup
	for i := range tallies {
		workers.Add(1)
		go func() {
			defer workers.Done()
			tallies[i] = work(connection, from, until)
		}()
	}
	workers.Wait()
	took := time.Since(from)
	must(connection.Close())
	var sum tally
	for _, one := range tallies {
		sum.latencies = append(sum.latencies, one.latencies...)
		sum.failed += one.failed
		sum.all += one.all
	}
	sort.Slice(sum.latencies, func(a, b int) bool { return sum.latencies[a] < sum.latencies[b] })
	at := func(share float64) int64 {
		return sum.latencies[int(share*float64(len(sum.latencies)-1))].Microseconds()
	}
	fmt.Println("RESULT", len(sum.latencies), took.Microseconds(), at(0.5), at(0.99), sum.failed, sum.all)
}

func main() {
	if os.Args[1] == "server" {
		serve(os.Args[2])
		return
	}
	seconds, err := strconv.Atoi(os.Args[3])
	must(err)
	concurrency, err := strconv.Atoi(os.Args[4])
	must(err)
	load(os.Args[2], seconds, concurrency)
}
