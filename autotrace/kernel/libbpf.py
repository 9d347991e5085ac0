"""The distribution's libbpf (1.0 or newer) through ctypes: only the functions that are used.

libbpf's own documentation is in its header, bpf/libbpf.h. From 1.0 on, functions that return a pointer return
NULL and set errno; those that return an int return a negative errno.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p

from autotrace.errors import AutotraceError

PRINT_CALLBACK = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

_MESSAGE_MAX = 1 << 24
_KEPT_OF_MESSAGE = 4096


class IterLinkInfo(ctypes.Structure):
    """union bpf_iter_link_info (include/uapi/linux/bpf.h), as far as the map element iterator needs it."""

    _fields_ = (("map_fd", c_uint32), ("rest", c_uint32 * 3))


class IterAttachOpts(ctypes.Structure):
    """struct bpf_iter_attach_opts."""

    _fields_ = (("sz", c_size_t), ("link_info", POINTER(IterLinkInfo)), ("link_info_len", c_uint32))


class TestRunOpts(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__section_name": (c_char_p, (c_void_p,)),
    "bpf_program__set_expected_attach_type": (c_int, (c_void_p, c_uint32)),
    "bpf_program__set_autoload": (c_int, (c_void_p, ctypes.c_bool)),
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__type_by_id": (c_void_p, (c_void_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
    "btf__free": (None, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_program__attach_perf_event": (c_void_p, (c_void_p, c_int)),
    "bpf_program__attach_iter": (c_void_p, (c_void_p, c_void_p)),
    "bpf_program__attach_uprobe": (c_void_p, (c_void_p, ctypes.c_bool, c_int, c_char_p, c_size_t)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_link__fd": (c_int, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_iter_create": (c_int, (c_int,)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "bpf_enable_stats": (c_int, (c_int,)),
}


class Libbpf:
    """The loaded library. Its attributes are the functions of `_SIGNATURES`.

    What libbpf prints is collected, and handed out by `last_words` when something failed. Raises AutotraceError
    if there is no libbpf, or an old one.
    """

    def __init__(self) -> None:
        name = "libbpf.so.1"
        try:
            self._library = ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            raise AutotraceError(
                f"libbpf could not be loaded ({error}): install the package libbpf1 (Debian, Ubuntu) or libbpf"
            ) from error
        for function, (result, arguments) in _SIGNATURES.items():
            entry = getattr(self._library, function)
            entry.restype = result
            entry.argtypes = arguments
            setattr(self, function, entry)
        self._printed: list[str] = []
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._print_callback = PRINT_CALLBACK(self._collect)
        self._library.libbpf_set_print(ctypes.cast(self._print_callback, c_void_p))

    def __getattr__(self, name: str) -> Callable[..., int]:
        raise AttributeError(f"libbpf function {name} is not in _SIGNATURES")

    def _collect(self, level: int, form: bytes, arguments: int) -> int:
        if level <= 1:  # LIBBPF_WARN, LIBBPF_INFO; the rest is for libbpf's own developers
            # The verifier's log comes as one message, with the reason at its end.
            line = ctypes.create_string_buffer(_MESSAGE_MAX)
            self._vsnprintf(line, c_size_t(_MESSAGE_MAX), form, c_void_p(arguments))
            self._printed.append(line.value[-_KEPT_OF_MESSAGE:].decode(errors="replace").rstrip())
            del self._printed[:-40]
        return 0

    def last_words(self) -> str:
        """What libbpf has printed since the last call, newest last."""
        words = "\n".join(self._printed)
        self._printed.clear()
        return words


def give_back_memory() -> None:
    """Return freed memory to the system: to load a program, libbpf reads all types of the kernel, some 30 MB, and
    glibc would keep them. Another C library may have no such function."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def errno_name(code: int) -> str:
    """`EPERM (Operation not permitted)` for 1 or -1."""
    import errno
    import os

    return f"{errno.errorcode.get(abs(code), str(code))} ({os.strerror(abs(code))})"
