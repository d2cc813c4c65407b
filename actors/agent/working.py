"""How a piece of data work ends: the one place that maps errors to outcomes, for backup and restore alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from actors.agent.port import Outcome, WorkControl, WorkOutcome
from actors.agent.transfer import Transfer, first_error
from rbcore.errors import Damaged, ProtocolViolation, RbError, StorageFull, Unavailable

BACKUP_TRY_AGAIN = (Unavailable, StorageFull, ProtocolViolation, Damaged)
"""Errors after which another attempt may fare better: the peer went away, its storage had no room, a frame was not what was sent."""
RESTORE_TRY_AGAIN = (Unavailable, ProtocolViolation)
"""For a restore, a full file system is the destination's: somebody must make room first. Damage will not go away either."""


async def carry_out(
    job: Callable[[], Awaitable[WorkOutcome]],
    transfer: Transfer,
    control: WorkControl,
    try_again: tuple[type[RbError], ...],
) -> WorkOutcome:
    """Run ``job`` under the control's scope and say how it ended. The caller closes the channel and tells the daemon."""
    outcome: WorkOutcome | None = None
    failure: RbError | None = None
    with control.scope:
        try:
            outcome = await job()
        except* RbError as group:
            failure = first_error(group)
    if outcome is not None:
        return outcome
    if control.killed:
        return WorkOutcome("killed", "killed by order")
    failure = transfer.failure or failure
    if failure is None:
        return WorkOutcome("interrupted", "the agent is stopping")
    kind: Outcome = "interrupted" if isinstance(failure, try_again) else "error"
    return WorkOutcome(kind, failure.message)
