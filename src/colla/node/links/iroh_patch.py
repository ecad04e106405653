"""Mends one slowness of iroh's Python binding: it copies outgoing bytes one at a time.

UniFFI's generated `_UniffiRustBufferBuilder.write` assigns byte by byte in a Python loop, which bounds
sending to about 4 MB/s. The two methods are replaced by a `memmove`, only for versions of iroh that were
seen to need it; any other version is left alone, slower at worst. A test looks at the original methods
and fails once upstream no longer copies byte by byte: then this file is to be deleted.
"""

from __future__ import annotations

import ctypes
import struct
from importlib.metadata import version
from typing import Any

from iroh import iroh_ffi

SLOW_VERSIONS = ("1.2.0",)
"""The versions of `iroh` whose binding copies byte by byte."""

_builder: Any = iroh_ffi._UniffiRustBufferBuilder
ORIGINAL_WRITE = _builder.write
ORIGINAL_PACK_INTO = _builder._pack_into


def _write(self: Any, value: bytes) -> None:
    length = len(value)
    if length:
        with self._reserve(length):
            target = ctypes.cast(self.rbuf.data, ctypes.c_void_p).value + self.rbuf.len
            ctypes.memmove(target, bytes(value), length)


def _pack_into(self: Any, size: int, format: str, value: Any) -> None:
    _write(self, struct.pack(format, value))


def apply() -> bool:
    """Patch the binding when its version is known to need it. Idempotent; returns whether it is patched."""
    if version("iroh") not in SLOW_VERSIONS:
        return False
    _builder.write = _write
    _builder._pack_into = _pack_into
    return True
