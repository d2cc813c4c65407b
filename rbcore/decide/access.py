"""Logins, logouts and refused calls: facts for the audit, and the block after too many failures (reference 3.27).

Counted per user name and address, so that nobody can lock a user out from elsewhere. Attempts during a block are recorded
but do not make it longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rbcore.commands import Command, Context, NoteAccessDenied, NoteLogin, NoteLogout
from rbcore.configuration import configured
from rbcore.decide.decision import Decision, Draft
from rbcore.entities import LoginFailures, User
from rbcore.errors import AuthenticationFailed
from rbcore.events import AccessDeniedNoted, LoggedOut, LoginFailed, LoginSucceeded
from rbcore.state import State

_ACCESS: Final = "access"
"""Stream ``access/0``: facts that belong to no user."""
_NAME_LENGTH_MAX: Final = 256
_TEXT_LENGTH_MAX: Final = 1024


def login_blocked(state: State, user_name: str, address: str, now_ns: int) -> bool:
    """Whether logins of this name from this address are refused now, whatever the password."""
    attempts_max = int(configured(state, "wrong_auth_attempts_count"))
    failures = state.by_key(LoginFailures, (_cut(user_name, _NAME_LENGTH_MAX), address))
    if failures is None or attempts_max == 0:
        return False
    return failures.count >= attempts_max and now_ns < failures.last_ns + _block_ns(state)


def _block_ns(state: State) -> int:
    return int(configured(state, "wrong_auth_block_period")) * 60 * 10**9


def _cut(text: str, length_max: int) -> str:
    """Whatever a stranger sent, bounded and storable."""
    return text[:length_max].encode("utf-8", "replace").decode()


def note_login(state: State, command: NoteLogin, context: Context) -> Decision:
    draft = Draft(state)
    if command.succeeded:
        user = state.by_key(User, command.user_name)
        if user is None:
            raise AuthenticationFailed("Verification failed")
        draft.add(User, user.id, LoginSucceeded(command.address))
        return draft.decision(ids=[user.id])
    name = _cut(command.user_name, _NAME_LENGTH_MAX)
    in_a_row = 0
    if not login_blocked(state, name, command.address, context.now_ns):
        before = state.by_key(LoginFailures, (name, command.address))
        recent = before is not None and context.now_ns < before.last_ns + _block_ns(state)
        in_a_row = before.count + 1 if before is not None and recent else 1
    reason = _cut(command.reason, _TEXT_LENGTH_MAX)
    draft.add(_ACCESS, 0, LoginFailed(name, command.address, reason, in_a_row))
    return draft.decision()


def note_logout(state: State, command: NoteLogout, context: Context) -> Decision:
    draft = Draft(state)
    user = state.by_key(User, command.user_name)
    if user is not None:
        draft.add(User, user.id, LoggedOut(_cut(command.reason, _TEXT_LENGTH_MAX)))
    return draft.decision()


def note_access_denied(state: State, command: NoteAccessDenied, context: Context) -> Decision:
    draft = Draft(state)
    event = AccessDeniedNoted(
        _cut(command.user_name, _NAME_LENGTH_MAX),
        _cut(command.method, 16),
        _cut(command.path, _TEXT_LENGTH_MAX),
        command.address,
    )
    draft.add(_ACCESS, 0, event)
    return draft.decision()


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    NoteLogin: note_login,
    NoteLogout: note_logout,
    NoteAccessDenied: note_access_denied,
}
