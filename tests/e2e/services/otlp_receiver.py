"""An OTLP receiver: `otlp_receiver.py grpc|http PORT LOG [SECONDS]`, which answers after SECONDS.

It logs each request as a JSON line: `spans` (trace_id, span_id, name, service) or `metrics` (names).
"""

import gzip
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

PROTOCOL, PORT = sys.argv[1], int(sys.argv[2])
LOG = Path(sys.argv[3]).open("a", buffering=1)  # noqa: SIM115
SECONDS = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0


def log_traces(request):
    time.sleep(SECONDS)
    spans = [
        {
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "name": span.name,
            "service": next(
                a.value.string_value for a in each.resource.attributes if a.key == "service.name"
            ),
        }
        for each in request.resource_spans
        for scope in each.scope_spans
        for span in scope.spans
    ]
    LOG.write(json.dumps({"spans": spans}) + "\n")
    return trace_service_pb2.ExportTraceServiceResponse()


def log_metrics(request):
    time.sleep(SECONDS)
    names = [
        metric.name
        for each in request.resource_metrics
        for scope in each.scope_metrics
        for metric in scope.metrics
    ]
    LOG.write(json.dumps({"metrics": names}) + "\n")
    return metrics_service_pb2.ExportMetricsServiceResponse()


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):  # noqa: N802
        return log_traces(request)


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):  # noqa: N802
        return log_metrics(request)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            answer = log_traces(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
        else:
            answer = log_metrics(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
        content = answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments):
        pass


if PROTOCOL == "grpc":
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    server.wait_for_termination()
else:
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
