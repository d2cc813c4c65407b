"""The tree of errors: values with an address.

Every error a caller can meet has a stable ``code``, a HTTP ``status`` and a sentence that tells the operator what
happened, to what, and what to do. Each API edge maps this tree once (DESIGN, law 7). Programming errors are not here:
they stay ordinary Python exceptions and are bugs.

``errors`` maps a field name (or ``_schema`` for the object as a whole) to a list of sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec


class RbError(Exception):
    """Base of all errors that have an address. Never raised itself."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        errors: Mapping[str, Sequence[str]] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errors: dict[str, list[str]] = {k: list(v) for k, v in (errors or {}).items()}
        self.data: dict[str, Any] = dict(data or {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code}: {self.message}>"


class InvalidRequest(RbError):
    """A field, parameter or body is not acceptable."""

    code, status = "invalid_request", 400


class NotAllowedNow(RbError):
    """The object's present state does not allow the operation (a task that is Done cannot be paused)."""

    code, status = "not_allowed_now", 400


class Refused(RbError):
    """A rule refuses the operation: something still refers to the object, a time lock holds."""

    code, status = "refused", 400


class CommandIdReused(RbError):
    """The log remembers this command id with another question."""

    code, status = "command_id_reused", 400


class AuthenticationFailed(RbError):
    code, status = "authentication_failed", 401


class AccessDenied(RbError):
    code, status = "access_denied", 403


class NotFound(RbError):
    code, status = "not_found", 404


class MethodNotAllowed(RbError):
    code, status = "method_not_allowed", 405


class TooLarge(RbError):
    """A body or message is over its bound."""

    code, status = "too_large", 400


class LibraryHoldsUnknown(RbError):
    code, status = "library_holds_unknown_cartridges", 422


class VersionConflict(RbError):
    """The stream moved on since the caller looked at it. Retried by the journal; reaches users only from the log API."""

    code, status = "version_conflict", 400


class Unavailable(RbError):
    """The part that would answer is not there now (client offline, daemon stopping, mailbox full). Safe to repeat."""

    code, status = "unavailable", 503


class ReadOnly(Unavailable):
    """The log volume is full: reads go on, writes resume when there is room."""

    code = "read_only_log_volume_full"


class DeadlineExceeded(Unavailable):
    code, status = "deadline_exceeded", 504


class StorageFull(RbError):
    """A pool or device has no room. The task is suspended and retried."""

    code, status = "storage_full", 507


class Damaged(RbError):
    """Bytes are not what was written. ``data`` says which block, container, event or row."""

    code, status = "damaged", 500


class ProtocolViolation(RbError):
    """A peer sent something that the protocol does not know. The connection is closed."""

    code, status = "protocol_violation", 400


class DeviceNotReady(Unavailable):
    """A changer or drive that does not become ready; the message says whether to wait, to load something or to go there."""

    code = "device_not_ready"


class ReservedByAnother(Unavailable):
    code = "device_reserved_by_another_host"


class HardwareFailed(Unavailable):
    """The device says that it is broken, or aborts commands for no reason that it would name."""

    code = "hardware_failed"


class CleaningRequired(Unavailable):
    code = "cleaning_required"


class MediumFailed(Damaged):
    """A cartridge cannot be read or written at some place, or at all."""

    code = "medium_failed"


class EndOfMedium(StorageFull):
    """The physical end of a cartridge. ``data`` may say how much of the last write is on it."""

    code = "end_of_medium"


class WriteProtected(NotAllowedNow):
    code = "write_protected"


class NoCartridge(NotAllowedNow):
    """The drive is empty."""

    code = "no_cartridge"


class ElementEmpty(NotAllowedNow):
    """A changer was to take a cartridge from where none is."""

    code = "element_empty"


class ElementFull(NotAllowedNow):
    """A changer was to put a cartridge where one is."""

    code = "element_full"


class RemovalPrevented(NotAllowedNow):
    code = "removal_prevented"


class UnknownElement(NotFound):
    """The changer has no element of that address, or cannot go there."""

    code = "unknown_element"


class PositionLost(NotAllowedNow):
    """A drive was reset or got another cartridge, or a command was interrupted: where the tape stands is not known. Rewind or locate first."""

    code = "position_lost"


class UnsupportedByDevice(Refused):
    """The device does not have the command, page or mode at all."""

    code = "unsupported_by_device"


class RefusedByDevice(Refused):
    """The device knows the command and did not accept it as it was."""

    code = "refused_by_device"


class Failure(msgspec.Struct, frozen=True):
    """An :class:`RbError` as a message: what crosses the bus and comes out as the same error on the other side."""

    code: str
    message: str
    errors: dict[str, list[str]] = {}
    data: dict[str, Any] = {}

    @classmethod
    def of(cls, error: RbError) -> Failure:
        return cls(code=error.code, message=error.message, errors=error.errors, data=error.data)

    def to_error(self) -> RbError:
        kind = _BY_CODE.get(self.code, Unavailable)
        return kind(self.message, errors=self.errors, data=self.data)


def _descendants(kind: type[RbError]) -> list[type[RbError]]:
    found: list[type[RbError]] = []
    for child in kind.__subclasses__():
        found += [child, *_descendants(child)]
    return found


UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Everything that msgspec raises for bytes that are not what they should be: text that is no UTF-8 and nesting without end
come as errors of the interpreter's."""

_BY_CODE: dict[str, type[RbError]] = {kind.code: kind for kind in _descendants(RbError)}
assert len(_BY_CODE) == len(_descendants(RbError)), "every error has a code of its own"
