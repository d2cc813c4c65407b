"""Memory for data of commands, as both transports need it: where C reads and writes, and nobody copies."""

from __future__ import annotations

import ctypes
from typing import Final

SHORT_BYTES: Final = 64 * 1024

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_char_p, ctypes.c_ssize_t)


def room(length: int) -> bytes:
    """Room for an answer, which C fills before anybody else sees it; what extension modules do with this call.

    So megabytes are neither cleared before the transfer nor copied after it: each of the two costs about a tenth of it. Short answers begin as
    zeros, for devices that announce more than they send.
    """
    if length <= SHORT_BYTES:
        return bytes(bytearray(length))
    unfilled: bytes = _new_bytes(None, length)
    return unfilled


def place_of(buffer: bytes) -> int:
    """Of the first byte; good as long as ``buffer`` is referred to."""
    return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0
