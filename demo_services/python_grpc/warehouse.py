"""The shop's warehouse: it packs parcels, has the courier collect them, and says where they are.

Ordinary grpcio code on a pool of threads; there is no tracing in it.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import shop_pb2
import shop_pb2_grpc

WAREHOUSE_PORT = int(os.environ.get("WAREHOUSE_PORT", "18088"))
COURIER_PORT = int(os.environ.get("COURIER_PORT", "18089"))
THREADS = int(os.environ.get("WAREHOUSE_THREADS", "16"))
TIMEOUT_S = 10.0


class Warehouse(shop_pb2_grpc.WarehouseServicer):
    def __init__(self, courier: shop_pb2_grpc.CourierStub) -> None:
        self.courier = courier

    def Pack(self, request, context):  # noqa: N802
        receipt = self.courier.Collect(request, timeout=TIMEOUT_S)
        receipt.handled_by.append("warehouse")
        return receipt

    def Track(self, request, context):  # noqa: N802
        """Its own position, then those that the courier knows, each as it comes."""
        yield shop_pb2.Position(place="shelf")
        yield from self.courier.Track(request, timeout=TIMEOUT_S)

    def Find(self, request, context):  # noqa: N802
        """Where the parcel is; the courier's error is passed on."""
        try:
            return self.courier.Find(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())


class JsonAccessLog(grpc.ServerInterceptor):
    """Writes one JSON object for each call: when it ended, what it was, how many messages it sent back."""

    def __init__(self) -> None:
        path = os.environ.get("ACCESS_LOG")
        handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._log = logging.Logger("access")
        self._log.addHandler(handler)

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None:
            return None
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        logged = self._stream if handler.response_streaming else self._unary
        return make(
            logged(handler.unary_stream or handler.unary_unary, details.method[1:]),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, behaviour, method):
        def logged(request, context):
            start, messages = time.perf_counter(), 0
            try:
                answer = behaviour(request, context)
                messages = 1
                return answer
            finally:
                self._write(start, method, request.id, messages, context)

        return logged

    def _stream(self, behaviour, method):
        def logged(request, context):
            start, messages = time.perf_counter(), 0
            try:
                for message in behaviour(request, context):
                    messages += 1
                    yield message
            finally:
                self._write(start, method, request.id, messages, context)

        return logged

    def _write(self, start, method, request_id, messages, context):
        entry = {
            "time": round(time.time(), 6),
            "method": method,
            "id": request_id,
            "status": (context.code() or grpc.StatusCode.OK).name,
            "messages": messages,
            "duration": round(time.perf_counter() - start, 6),
        }
        self._log.info(json.dumps(entry))


def main() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with grpc.insecure_channel(f"127.0.0.1:{COURIER_PORT}") as channel:
        server = grpc.server(
            ThreadPoolExecutor(THREADS),
            interceptors=(JsonAccessLog(),),
            # Another program on the port is an error, not somebody to share it with.
            options=(("grpc.so_reuseport", 0),),
        )
        warehouse = Warehouse(shop_pb2_grpc.CourierStub(channel))
        shop_pb2_grpc.add_WarehouseServicer_to_server(warehouse, server)
        server.add_insecure_port(f"127.0.0.1:{WAREHOUSE_PORT}")
        server.start()
        print(f"warehouse listens on 127.0.0.1:{WAREHOUSE_PORT}", file=sys.stderr, flush=True)
        ended.wait()
        # Let the open calls end up in the access log, then leave.
        server.stop(grace=3).wait()


if __name__ == "__main__":
    main()
