"""What the running kernel's type information says of its functions, through libbpf."""

from __future__ import annotations

import ctypes

from autotrace.errors import AutotraceError
from autotrace.kernel.libbpf import Libbpf

_BTF_KIND_ENUM = 6
_BTF_KIND_FUNC = 12
_VLEN_MASK = 0xFFFF


class _Type(ctypes.Structure):
    """struct btf_type (include/uapi/linux/btf.h)."""

    _fields_ = (("name_off", ctypes.c_uint32), ("info", ctypes.c_uint32), ("type", ctypes.c_uint32))


class _EnumMember(ctypes.Structure):
    """struct btf_enum."""

    _fields_ = (("name_off", ctypes.c_uint32), ("val", ctypes.c_int32))


class KernelFunctions:
    """Looks up functions of the kernel by name. Close it when done. Raises AutotraceError without BTF."""

    def __init__(self, bpf: Libbpf) -> None:
        self._bpf = bpf
        self._btf = bpf.btf__load_vmlinux_btf()
        if not self._btf:
            raise AutotraceError(
                "this kernel has no type information (/sys/kernel/btf/vmlinux): use one built with "
                "CONFIG_DEBUG_INFO_BTF, as current distributions' are"
            )

    def parameters(self, name: str) -> int | None:
        """How many parameters a function has; None if the kernel has no such function."""
        found = self._bpf.btf__find_by_name_kind(self._btf, name.encode(), _BTF_KIND_FUNC)
        if found < 0:
            return None
        function = self._type(found)
        return int(self._type(function.type).info) & _VLEN_MASK

    def has_helper(self, name: str) -> bool:
        """Is there a BPF helper of this name, such as `ringbuf_output`?"""
        found = self._bpf.btf__find_by_name_kind(self._btf, b"bpf_func_id", _BTF_KIND_ENUM)
        if found < 0:
            return False
        helpers = self._type(found)
        members = (_EnumMember * (int(helpers.info) & _VLEN_MASK)).from_address(
            ctypes.addressof(helpers) + ctypes.sizeof(_Type)
        )
        names: list[bytes] = [self._bpf.btf__name_by_offset(self._btf, each.name_off) for each in members]  # type: ignore[misc]
        return f"BPF_FUNC_{name}".encode() in names

    def close(self) -> None:
        """Free the type information."""
        self._bpf.btf__free(self._btf)

    def _type(self, number: int) -> _Type:
        return _Type.from_address(self._bpf.btf__type_by_id(self._btf, number))
