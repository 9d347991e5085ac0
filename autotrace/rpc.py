"""Remote calls as the stable OpenTelemetry semantic conventions for RPC and gRPC want them
(https://opentelemetry.io/docs/specs/semconv/rpc/)."""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes.rpc_attributes import (
    RPC_METHOD,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
)

from autotrace.model import AttributeValue, Exchange, Role

METHOD_UNKNOWN = "_OTHER"
"""`rpc.method` of a call whose name is not known."""

# Not in the conventions.
RPC_TIMEOUT = "autotrace.rpc.timeout"
"""How long the client is willing to wait, in seconds."""
RPC_REQUEST_MESSAGES = "autotrace.rpc.request.messages"
RPC_RESPONSE_MESSAGES = "autotrace.rpc.response.messages"
RPC_REQUEST_SIZE = "autotrace.rpc.request.size"
RPC_RESPONSE_SIZE = "autotrace.rpc.response.size"
"""Bytes of all messages with their prefixes, as sent: compressed if they are."""

SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The status codes that are the server's fault (semantic conventions for gRPC, "gRPC Status"); for a client
all but OK are errors."""


def error_type(exchange: Exchange) -> str:
    """`error.type` of a call, empty if all is well. The status says it; without one, what became of the
    stream."""
    call = exchange.rpc
    status = call.status if call is not None else ""
    if not status:
        return exchange.error
    if exchange.role is Role.SERVER:
        return status if status in SERVER_ERRORS else ""
    return "" if status == "OK" else status


def add_attributes(exchange: Exchange, attributes: dict[str, AttributeValue]) -> str:
    """Add what is known of a call; returns the span's name. ValueError if the exchange is none."""
    call = exchange.rpc
    if call is None:
        raise ValueError("an exchange that is no remote call has none of its attributes")
    attributes[RPC_SYSTEM_NAME] = call.system
    attributes[RPC_METHOD] = call.method or METHOD_UNKNOWN
    if call.status:
        attributes[RPC_RESPONSE_STATUS_CODE] = call.status
    if call.timeout_ns:
        attributes[RPC_TIMEOUT] = call.timeout_ns / 1e9
    for name, value in (
        (RPC_REQUEST_MESSAGES, call.request_messages),
        (RPC_RESPONSE_MESSAGES, call.response_messages),
        (RPC_REQUEST_SIZE, exchange.request_body_size),
        (RPC_RESPONSE_SIZE, exchange.response_body_size),
    ):
        if value is not None:
            attributes[name] = value
    return call.method or call.system
