"""Who is asking: tokens of a request to a user of the live state, and login with its protections (reference 3.27, 4.3)."""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import Any

from httpapi.call import Call, Caller
from httpapi.method import ANY_USER
from httpapi.services import Services
from httpapi.tokens import Family, TokenPair, verification_failed
from rbcore.commands import NoteLogin
from rbcore.decide.access import login_blocked
from rbcore.entities import User
from rbcore.errors import AccessDenied
from rbcore.state import State

log = logging.getLogger("rbmedia.access")
"""Incidents of authorisation have the documented log file of their own."""

ACCESS_COOKIE = "access_token_cookie"
REFRESH_COOKIE = "refresh_token_cookie"
NAME_LENGTH_MAX = 256
"""Characters of a user name that are recorded of a failed login."""


def bearer(value: str | None) -> str:
    """The token of an ``Authorization`` value; empty when there is none or it is another scheme."""
    scheme, _, token = (value or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def authenticate(services: Services, headers: Any, cookies: Any) -> Caller:
    """The user behind a request's access token and CSRF value. Raises ``AuthenticationFailed``.

    The token stands in ``Authorization`` or, without that header, in the cookie. The CSRF header is demanded of every
    method, GET and bearer calls included: that is what the manual says.
    """
    token = bearer(headers.get("Authorization")) if "Authorization" in headers else cookies.get(ACCESS_COOKIE, "")
    family = services.tokens.verify_access(token, headers.get("X-CSRF-TOKEN", ""))
    user = user_of(services.journal.state, family)
    if user is None:
        services.tokens.revoke(family)
        raise verification_failed()
    return Caller(user_id=user.id, name=user.username, roles=user.roles)


def user_of(state: State, family: Family) -> User | None:
    """The user of a login, as long as he exists and has the password he signed in with."""
    user = state.find(User, family.user_id)
    if user is None or user.username != family.user_name or user.credential_id != family.credential_id:
        return None
    return user


async def check_role(call: Call, roles: frozenset[str]) -> None:
    """Raises ``AccessDenied`` when none of the caller's roles may use the method; the refusal is recorded."""
    if has_role(call, roles):
        return
    needed = ", ".join(sorted(roles))
    await call.note_denied(f"it needs one of the roles {needed}")
    raise AccessDenied(f"Access denied: this method needs one of the roles {needed}.")


def has_role(call: Call, roles: frozenset[str]) -> bool:
    return roles == ANY_USER or not roles.isdisjoint(call.caller.roles)


async def login(call: Call, database: str, user_name: str, password: str) -> tuple[User, TokenPair]:
    """Check a name and a password, record the attempt, begin a login. Raises ``AuthenticationFailed``.

    The same work is done for a right name, a wrong name and a blocked one, so that time tells nothing and an attacker pays
    for every attempt. The block is looked at after the work, when attempts that ran side by side are already recorded.
    """
    services = call.services
    state = services.journal.state
    user = state.by_key(User, user_name)
    credential_id = user.credential_id if user is not None else ""
    right = await services.credentials.verify(credential_id, password)
    reason = _reason_against(call, user, database, user_name, right)
    if user is None or reason:
        name = user_name[:NAME_LENGTH_MAX]
        await call.note(NoteLogin(user_name=name, address=call.address, succeeded=False, reason=reason))
        log.warning("login of %r from %s refused: %s", name, call.address, reason)
        raise verification_failed()
    await call.note(NoteLogin(user_name=user.username, address=call.address, succeeded=True))
    return user, services.tokens.begin(user.id, user.username, user.credential_id)


def _reason_against(call: Call, user: User | None, database: str, user_name: str, right: bool) -> str:
    services = call.services
    if database != services.settings.database:
        return "unknown database"
    if login_blocked(services.journal.state, user_name, call.address, services.clock.now_ns()):
        return "blocked after too many failed logins"
    if user is None:
        return "unknown user"
    return "" if right else "wrong password"


def session_cookies(tokens: TokenPair, app_host: str) -> tuple[str, str]:
    return (
        _cookie(ACCESS_COOKIE, tokens.access_token, app_host),
        _cookie(REFRESH_COOKIE, tokens.refresh_token, app_host),
    )


def expired_cookies(app_host: str) -> tuple[str, str]:
    return (
        _cookie(ACCESS_COOKIE, "", app_host) + "; Max-Age=0",
        _cookie(REFRESH_COOKIE, "", app_host) + "; Max-Age=0",
    )


def _cookie(name: str, value: str, app_host: str) -> str:
    """A session cookie as documented. Written by hand because Werkzeug drops the documented leading dot of the domain."""
    domain = cookie_domain(app_host)
    part = f"; Domain={domain}" if domain else ""
    return f"{name}={value}; HttpOnly; Secure; Path=/; SameSite=Strict{part}"


def cookie_domain(app_host: str) -> str:
    """The parent domain of ``app_host`` with a leading dot: ``.rubackup.local`` for ``api.rubackup.local``.

    Empty (the cookie belongs to that one host) for localhost, for an address, and where the parent would be a top-level
    domain, which browsers refuse.
    """
    host = app_host.strip("[]").rstrip(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        parent = host.partition(".")[2]
        return f".{parent}" if "." in parent and re.fullmatch(r"[A-Za-z0-9.-]+", parent) else ""
    return ""
