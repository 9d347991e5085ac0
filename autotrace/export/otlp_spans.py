"""What the two OTLP encodings of a span, protobuf and JSON, have in common."""

from __future__ import annotations

from autotrace.model import Process, Role, Span

ATTRIBUTES_REMEMBERED = 8192
"""How many encoded attributes an encoder keeps before it begins anew."""


def span_flags(span: Span) -> int:
    """`Span.flags` of trace.proto: whether the parent is known to be in another process (bits 8 and 9)."""
    return 0x300 if span.parent_span_id and span.role is Role.SERVER else 0x100


def by_process(spans: list[Span]) -> list[tuple[Process, list[Span]]]:
    """Group spans by watched process, which is one Resource each; order is kept."""
    groups: dict[int, tuple[Process, list[Span]]] = {}
    for span in spans:
        group = groups.get(id(span.process))
        if group is None:
            group = groups[id(span.process)] = (span.process, [])
        group[1].append(span)
    return list(groups.values())


def utf8(text: str) -> str:
    """The text with question marks for lone surrogates, which UTF-8 cannot carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def is_int64(value: int) -> bool:
    """Whether OTLP has an integer for it; a larger one becomes text (specification, "Attribute type mapping",
    section "Integer Values")."""
    return -(2**63) <= value < 2**63
