"""Errors that nobody foresaw: the traceback goes to the log under an incident id, the id goes out, nothing else does."""

from __future__ import annotations

import logging

from rbcore.errors import RbError
from rbcore.ports import Randomness

log = logging.getLogger("rbmedia.api")


class _Incident(RbError):
    """Not in the tree of errors on purpose: nobody may raise it, it only gives an unexpected exception the envelope."""

    code, status = "internal_error", 500


def incident_of(error: BaseException, randomness: Randomness, verb: str, path: str) -> RbError:
    """What to answer for a bug, or for a part of the daemon that is broken."""
    incident = randomness.token_bytes(8).hex()
    log.error("incident %s: %s %s", incident, verb, path, exc_info=error)
    message = f"Internal error. The operator finds it in the daemon's log as incident {incident}."
    return _Incident(message, data={"incident": incident})
