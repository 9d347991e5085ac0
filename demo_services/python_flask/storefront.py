"""The shop's storefront: what a browser talks to, behind nginx. It calls catalogue, pricing and delivery.

Ordinary Flask code for gunicorn's thread workers; there is no tracing in it. Every path carries the
request's id, and the id is passed on in the path of every call, so that the access logs tell which call
belongs to which request.
"""

import functools
import http.client
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import requests
import shop_pb2
import shop_pb2_grpc
from flask import Flask, Response, request

CATALOGUE_PORT = int(os.environ.get("CATALOGUE_PORT", "18082"))
PRICING_PORT = int(os.environ.get("PRICING_PORT", "18083"))
PRICING_TLS_PORT = int(os.environ.get("PRICING_TLS_PORT", "18086"))
DELIVERY_PORT = int(os.environ.get("DELIVERY_PORT", "18087"))
TLS_CERT = os.environ.get("TLS_CERT", "cert.pem")
DEAD_PORT = int(os.environ.get("DEAD_PORT", "18084"))
DOWNLOAD_BYTES = 3 * 1024 * 1024
DOWNLOAD_BYTES_MAX = 16 * 1024 * 1024

app = Flask(__name__)
sessions = threading.local()


def session() -> requests.Session:
    """This thread's session, which keeps its connections open from one request to the next."""
    if not hasattr(sessions, "session"):
        sessions.session = requests.Session()
    return sessions.session


@functools.cache
def delivery() -> shop_pb2_grpc.DeliveryStub:
    """The delivery service, over a connection that all threads share; made late, because gunicorn forks."""
    return shop_pb2_grpc.DeliveryStub(grpc.insecure_channel(f"127.0.0.1:{DELIVERY_PORT}"))


def call_once(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """Make one request over a connection of its own and return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@app.get("/product/<request_id>")
def product(request_id: str):
    """One call over a kept-alive connection; the catalogue asks for the price."""
    answer = session().get(f"http://127.0.0.1:{CATALOGUE_PORT}/item/{request_id}", timeout=10)
    return answer.json(), answer.status_code


@app.get("/checkout/<request_id>")
def checkout(request_id: str):
    """A fan-out: three calls one after the other, each over a new connection."""
    statuses = [
        call_once(CATALOGUE_PORT, "GET", f"/item/{request_id}"),
        call_once(PRICING_PORT, "GET", f"/price/{request_id}"),
        call_once(PRICING_PORT, "GET", f"/stock/{request_id}"),
    ]
    return {"id": request_id, "statuses": statuses}


@app.get("/compare/<request_id>")
def compare(request_id: str):
    """A fan-out over threads of a pool made for this request."""
    calls = [
        (CATALOGUE_PORT, "GET", f"/title/{request_id}"),
        (PRICING_PORT, "GET", f"/price/{request_id}"),
    ]
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        statuses = list(pool.map(lambda call: call_once(*call), calls))
    return {"id": request_id, "statuses": statuses}


@app.post("/order/<request_id>")
def order(request_id: str):
    """Three services deep: the catalogue reserves the item with the pricing service."""
    status = call_once(CATALOGUE_PORT, "POST", f"/reserve/{request_id}", request.get_data())
    return {"id": request_id}, status


@app.delete("/cart/<request_id>")
def empty_cart(request_id: str):
    """A response without content."""
    return "", 204


@app.get("/slow/<request_id>")
def slow(request_id: str):
    """The pricing service takes its time."""
    return {"id": request_id}, call_once(PRICING_PORT, "GET", f"/slow/{request_id}")


@app.get("/broken/<request_id>")
def broken(request_id: str):
    """The catalogue fails with 500; the storefront says 502."""
    status = call_once(CATALOGUE_PORT, "GET", f"/broken/{request_id}")
    return {"id": request_id, "catalogue": status}, 502


@app.get("/crash/<request_id>")
def crash(request_id: str):
    """An exception nobody catches."""
    raise RuntimeError(f"request {request_id} asked for this")


@app.get("/missing/<request_id>")
def missing(request_id: str):
    """The catalogue does not know the item."""
    return {"id": request_id}, call_once(CATALOGUE_PORT, "GET", f"/missing/{request_id}")


@app.get("/refused/<request_id>")
def refused(request_id: str):
    """A call to a port where nothing listens."""
    try:
        call_once(DEAD_PORT, "GET", f"/{request_id}")
    except ConnectionRefusedError:
        return {"id": request_id}, 503
    return {"id": request_id}, 200


@app.get("/download/<request_id>")
def download(request_id: str):
    """A large response body; `?size=` sets its bytes."""
    size = min(request.args.get("size", DOWNLOAD_BYTES, type=int), DOWNLOAD_BYTES_MAX)
    return Response(b"x" * max(size, 0), mimetype="application/octet-stream")


@app.post("/upload/<request_id>")
def upload(request_id: str):
    """A large request body, sent on to the pricing service."""
    status = call_once(PRICING_PORT, "POST", f"/archive/{request_id}", request.get_data())
    return {"id": request_id}, status


@app.post("/pay/<request_id>")
def pay(request_id: str):
    """A call with TLS, over a kept-alive connection."""
    url = f"https://127.0.0.1:{PRICING_TLS_PORT}/charge/{request_id}"
    answer = session().post(url, request.get_data(), verify=TLS_CERT, timeout=10)
    return answer.json(), answer.status_code


@app.post("/ship/<request_id>")
def ship(request_id: str):
    """gRPC through three services, the last of which asks for a price by HTTP; the request's body is the note."""
    parcel = shop_pb2.Parcel(id=request_id, note=request.get_data(as_text=True))
    receipt = delivery().Ship(parcel, timeout=10)
    return {"id": request_id, "handled_by": list(receipt.handled_by), "price": receipt.price}, 201


@app.get("/track/<request_id>")
def track(request_id: str):
    """A stream through three gRPC services, each of which adds to it."""
    positions = delivery().Track(shop_pb2.Parcel(id=request_id), timeout=10)
    return {"id": request_id, "places": [position.place for position in positions]}


@app.get("/find/<request_id>")
def find(request_id: str):
    """The last of three gRPC services does not know the parcel."""
    try:
        position = delivery().Find(shop_pb2.Parcel(id=request_id), timeout=10)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return {"id": request_id}, 404
        raise
    return {"id": request_id, "place": position.place}
