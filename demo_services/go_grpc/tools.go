//go:build tools

// The programs that make Go code of ../shop.proto, so that go.mod fixes their versions.
package main

import (
	_ "google.golang.org/grpc/cmd/protoc-gen-go-grpc"
	_ "google.golang.org/protobuf/cmd/protoc-gen-go"
)
