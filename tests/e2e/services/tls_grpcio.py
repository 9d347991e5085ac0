"""A gRPC server of grpcio, whose BoringSSL has no symbols: `tls_grpcio.py PORT FOLDER`; in FOLDER are cert.pem and
key.pem."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

PORT, FOLDER = sys.argv[1], Path(sys.argv[2])


class Handler(grpc.GenericRpcHandler):
    def service(self, _details):
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Handler(),))
pair = ((FOLDER / "key.pem").read_bytes(), (FOLDER / "cert.pem").read_bytes())
server.add_secure_port(f"127.0.0.1:{PORT}", grpc.ssl_server_credentials([pair]))
server.start()
server.wait_for_termination()
