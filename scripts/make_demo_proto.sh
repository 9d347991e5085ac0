#!/bin/bash
# Make Go and Python code of demo_services/shop.proto, beside the services that use it: PYTHON has grpcio-tools,
# PLUGINS is the directory with protobuf's plugins for Go.
#   scripts/make_demo_proto.sh PYTHON PLUGINS
set -euo pipefail

python=$1 plugins=$2
cd "$(dirname "$0")/../demo_services"
protoc=("$OLDPWD/$python" -m grpc_tools.protoc -I . shop.proto)

for service in python_flask python_grpc; do
	"${protoc[@]}" --python_out="$service" --grpc_python_out="$service"
done
"${protoc[@]}" --plugin="$OLDPWD/$plugins/protoc-gen-go" --plugin="$OLDPWD/$plugins/protoc-gen-go-grpc" \
	--go_out=go_grpc --go_opt=module=delivery --go-grpc_out=go_grpc --go-grpc_opt=module=delivery
