// gogrpc server PORT LOG
// gogrpc client PORT LOG COUNT CONCURRENCY [KIND...]
//
// The same as grpc_peer.py, of gRPC-Go: see there for the kinds of calls. Messages are plain bytes. With TLS in the
// environment, a folder with cert.pem and key.pem, both speak TLS.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

var names = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (bytesCodec) Name() string { return "bytes" }

type callLog struct {
	lock sync.Mutex
	file *os.File
}

func (l *callLog) write(method string, code codes.Code) {
	line, _ := json.Marshal(map[string]string{"method": method, "status": names[code]})
	l.lock.Lock()
	defer l.lock.Unlock()
	fmt.Fprintf(l.file, "%s\n", line)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func parts(method string) (string, int) {
	kind, number, _ := strings.Cut(method[strings.LastIndex(method, "/")+1:], "-")
	n, err := strconv.Atoi(number)
	must(err)
	return kind, n
}

func messages(letter string, many bool, number, size int) [][]byte {
	count := 1
	if many {
		count = number % 5
	}
	all := make([][]byte, count)
	for i := range all {
		all[i] = bytes.Repeat([]byte(letter), size)
	}
	return all
}

func serve(log *callLog) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		kind, number := parts(method)
		finish := func(code codes.Code) error {
			log.write(method[1:], code)
			return status.Error(code, "as asked")
		}
		if kind == "slow" || kind == "cancel" {
			<-stream.Context().Done()
			return finish(status.FromContextError(stream.Context().Err()).Code())
		}
		for {
			var message []byte
			err := stream.RecvMsg(&message)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return finish(codes.Canceled)
			}
		}
		if kind == "halfway" {
			message := bytes.Repeat([]byte("r"), 2*number)
			if err := stream.SendMsg(&message); err != nil {
				return finish(codes.Canceled)
			}
		}
		if kind == "fail" || kind == "halfway" {
			return finish(codes.Code(number%16 + 1))
		}
		for _, message := range messages("r", kind == "server" || kind == "both", number, 2*number) {
			if err := stream.SendMsg(&message); err != nil {
				return finish(codes.Canceled)
			}
		}
		log.write(method[1:], codes.OK)
		return nil
	}
}

func call(connection *grpc.ClientConn, method string) error {
	kind, number := parts(method)
	limit := time.Minute
	if kind == "slow" {
		limit = 4 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(ctx, description, "/"+method)
	if err != nil {
		return err
	}
	for _, message := range messages("q", kind == "client" || kind == "both", number, number) {
		if err := stream.SendMsg(&message); err != nil {
			break // RecvMsg says why
		}
	}
	stream.CloseSend()
	if kind == "cancel" {
		time.AfterFunc(100*time.Millisecond, cancel)
	}
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// secured returns the credentials of a server and of a client.
func secured() (credentials.TransportCredentials, credentials.TransportCredentials) {
	folder := os.Getenv("TLS")
	if folder == "" {
		return insecure.NewCredentials(), insecure.NewCredentials()
	}
	server, err := credentials.NewServerTLSFromFile(folder+"/cert.pem", folder+"/key.pem")
	must(err)
	client, err := credentials.NewClientTLSFromFile(folder+"/cert.pem", "localhost")
	must(err)
	return server, client
}

func main() {
	port := os.Args[2]
	file, err := os.OpenFile(os.Args[3], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(err)
	log := &callLog{file: file}
	ofServer, ofClient := secured()
	if os.Args[1] == "server" {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		must(err)
		must(grpc.NewServer(grpc.Creds(ofServer), grpc.ForceServerCodec(bytesCodec{}),
			grpc.UnknownServiceHandler(serve(log))).Serve(listener))
	}
	count, err := strconv.Atoi(os.Args[4])
	must(err)
	concurrency, err := strconv.Atoi(os.Args[5])
	must(err)
	kinds := os.Args[6:]
	if len(kinds) == 0 {
		kinds = []string{"unary", "server", "client", "both", "fail", "slow", "cancel"}
	}
	connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(ofClient),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	must(err)
	seconds, _ := strconv.ParseFloat(os.Getenv("PAUSE"), 64)
	pause := time.Duration(seconds * float64(time.Second))
	jobs := make(chan int)
	var workers sync.WaitGroup
	for range concurrency {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := range jobs {
				kind := kinds[number%len(kinds)]
				if kind == "same" {
					number = 7
				}
				method := fmt.Sprintf("shop.Cart/%s-%d", kind, number)
				log.write(method, status.Code(call(connection, method)))
				time.Sleep(pause)
			}
		}()
	}
	for number := range count {
		jobs <- number
	}
	close(jobs)
	workers.Wait()
	connection.Close()
	time.Sleep(200 * time.Millisecond)
}
