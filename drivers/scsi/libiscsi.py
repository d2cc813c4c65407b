"""libiscsi's C interface through ctypes: exactly the functions and structures that the transport uses.

Declared after ``iscsi.h`` and ``scsi-lowlevel.h`` of libiscsi 1.19 (shared object version 7). The library is loaded at first
use, so that a host without it can run everything else.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from ctypes import POINTER, Structure, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint16, c_uint32, c_void_p
from typing import Any, Final

from rbcore.errors import Unavailable

SESSION_NORMAL: Final = 2
TRANSFER_NONE, TRANSFER_READ, TRANSFER_WRITE = 0, 1, 2
RESIDUAL_NONE, RESIDUAL_UNDERFLOW, RESIDUAL_OVERFLOW = 0, 1, 2
STATUS_CANCELLED, STATUS_ERROR, STATUS_TIMEOUT = 0x0F000000, 0x0F000001, 0x0F000002
"""libiscsi's own, for commands that the target gave no status for."""

COMMAND_CALLBACK = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_void_p)
"""context, status, command data, private data"""


class ParsedSense(Structure):
    _fields_ = (
        ("error_type", c_ubyte),
        ("key", c_uint),
        ("ascq", c_int),
        ("flags", c_ubyte),
        ("bit_pointer", c_ubyte),
        ("field_pointer", c_uint16),
    )


class DataIn(Structure):
    _fields_ = (("size", c_int), ("data", POINTER(c_ubyte)))


class Task(Structure):
    """``struct scsi_task``, up to and including what the transport reads. Only ever allocated by the library."""

    _fields_ = (
        ("status", c_int),
        ("cdb_size", c_int),
        ("transfer_direction", c_int),
        ("expected_bytes", c_int),
        ("cdb", c_ubyte * 16),
        ("residual_status", c_uint),
        ("residual", c_size_t),
        ("sense", ParsedSense),
        ("data_in", DataIn),
        ("memory", c_void_p),
        ("pointer", c_void_p),
        ("initiator_task_tag", c_uint32),
        ("command_number", c_uint32),
        ("lun", c_uint32),
    )


_FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "iscsi_create_context": (c_void_p, (c_char_p,)),
    "iscsi_destroy_context": (c_int, (c_void_p,)),
    "iscsi_set_session_type": (c_int, (c_void_p, c_int)),
    "iscsi_set_targetname": (c_int, (c_void_p, c_char_p)),
    "iscsi_set_initiator_username_pwd": (c_int, (c_void_p, c_char_p, c_char_p)),
    "iscsi_set_noautoreconnect": (None, (c_void_p, c_int)),
    "iscsi_connect_async": (c_int, (c_void_p, c_char_p, COMMAND_CALLBACK, c_void_p)),
    "iscsi_login_async": (c_int, (c_void_p, COMMAND_CALLBACK, c_void_p)),
    "iscsi_logout_async": (c_int, (c_void_p, COMMAND_CALLBACK, c_void_p)),
    "iscsi_scsi_command_async": (c_int, (c_void_p, c_int, POINTER(Task), COMMAND_CALLBACK, c_void_p, c_void_p)),
    "iscsi_get_fd": (c_int, (c_void_p,)),
    "iscsi_which_events": (c_int, (c_void_p,)),
    "iscsi_service": (c_int, (c_void_p, c_int)),
    "iscsi_get_error": (c_char_p, (c_void_p,)),
    "scsi_create_task": (POINTER(Task), (c_int, c_char_p, c_int, c_int)),
    "scsi_free_scsi_task": (None, (POINTER(Task),)),
    "scsi_task_add_data_in_buffer": (c_int, (POINTER(Task), c_int, c_void_p)),
    "scsi_task_add_data_out_buffer": (c_int, (POINTER(Task), c_int, c_void_p)),
}


@functools.cache
def load() -> ctypes.CDLL:
    """The library with its signatures. Raises ``Unavailable`` naming the package when it is not installed."""
    name = ctypes.util.find_library("iscsi") or "libiscsi.so.7"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise Unavailable(
            f"iSCSI devices need the library libiscsi, which is not there ({error}): install the package libiscsi7 (Debian, Ubuntu)"
        ) from error
    for function, (result, arguments) in _FUNCTIONS.items():
        declared = getattr(library, function)
        declared.restype, declared.argtypes = result, arguments
    return library
