// The shop's delivery service: it has parcels packed by the warehouse and says where they are.
// Ordinary gRPC-Go code; there is no tracing in it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"delivery/shop"
)

func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

type delivery struct {
	shop.UnimplementedDeliveryServer
	warehouse shop.WarehouseClient
}

func (d *delivery) Ship(ctx context.Context, parcel *shop.Parcel) (*shop.Receipt, error) {
	receipt, err := d.warehouse.Pack(ctx, parcel)
	if err != nil {
		return nil, err
	}
	receipt.HandledBy = append(receipt.HandledBy, "delivery")
	return receipt, nil
}

// Track gives its own position and then those that the warehouse knows, each as it comes.
func (d *delivery) Track(parcel *shop.Parcel, positions shop.Delivery_TrackServer) error {
	if err := positions.Send(&shop.Position{Place: "depot"}); err != nil {
		return err
	}
	more, err := d.warehouse.Track(positions.Context(), parcel)
	if err != nil {
		return err
	}
	for {
		position, err := more.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := positions.Send(position); err != nil {
			return err
		}
	}
}

func (d *delivery) Find(ctx context.Context, parcel *shop.Parcel) (*shop.Position, error) {
	return d.warehouse.Find(ctx, parcel)
}

// accessLog writes one JSON object for each call: when it ended, what it was, how many messages it sent back.
type accessLog struct {
	lines *log.Logger
}

func (l accessLog) write(start time.Time, method, id string, messages int, err error) {
	end := time.Now()
	line, _ := json.Marshal(map[string]any{
		"time":     float64(end.UnixMicro()) / 1e6,
		"method":   method[1:],
		"id":       id,
		"status":   code.Code(status.Code(err)).String(),
		"messages": messages,
		"duration": end.Sub(start).Seconds(),
	})
	l.lines.Print(string(line))
}

func (l accessLog) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	start, messages := time.Now(), 1
	answer, err := handler(ctx, request)
	if err != nil {
		messages = 0
	}
	l.write(start, info.FullMethod, request.(*shop.Parcel).Id, messages, err)
	return answer, err
}

func (l accessLog) stream(
	server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	start := time.Now()
	counted := &countedStream{ServerStream: stream}
	err := handler(server, counted)
	l.write(start, info.FullMethod, counted.id, counted.sent, err)
	return err
}

type countedStream struct {
	grpc.ServerStream
	id   string
	sent int
}

func (s *countedStream) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	if parcel, ok := message.(*shop.Parcel); ok && err == nil {
		s.id = parcel.Id
	}
	return err
}

func (s *countedStream) SendMsg(message any) error {
	s.sent++
	return s.ServerStream.SendMsg(message)
}

func main() {
	address := "127.0.0.1:" + setting("DELIVERY_PORT", "18087")
	out := os.Stdout
	if path := os.Getenv("ACCESS_LOG"); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			log.Fatalf("the access log cannot be opened: %v", err)
		}
		out = file
	}
	warehouse, err := grpc.NewClient(
		"127.0.0.1:"+setting("WAREHOUSE_PORT", "18088"), grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		log.Fatalf("the warehouse's address cannot be used: %v", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatalf("port of the delivery service: %v", err)
	}

	access := accessLog{log.New(out, "", 0)}
	server := grpc.NewServer(grpc.UnaryInterceptor(access.unary), grpc.StreamInterceptor(access.stream))
	shop.RegisterDeliveryServer(server, &delivery{warehouse: shop.NewWarehouseClient(warehouse)})

	// Let the open calls end up in the access log, then leave.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		server.GracefulStop()
	}()
	fmt.Fprintf(os.Stderr, "delivery listens on %s\n", address)
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
