"""auth/login, auth/refresh, auth/logout (reference 4.3)."""

from __future__ import annotations

from typing import Any

import msgspec

from httpapi import signin
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.method import StructBody
from httpapi.rubackup.catalogue import action
from httpapi.tokens import RefreshTokenReused, TokenPair, verification_failed
from rbcore.commands import NoteLogout
from rbcore.entities import User
from rbcore.errors import AuthenticationFailed


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rubackup_database: str
    rubackup_user: str
    password: str


_SIGNED_IN = {
    "type": "object",
    "properties": {
        "access_token": {"type": "string", "description": "JWT, 15 minutes."},
        "refresh_token": {"type": "string", "description": "JWT, until 24 hours after the login."},
        "csrf_token": {"type": "string", "format": "uuid", "description": "For the header X-CSRF-TOKEN."},
        "role": {"type": "array", "items": {"type": "string"}},
        "rubackup_server_address": {"type": "string"},
        "user_name": {"type": "string"},
    },
    "required": ["access_token", "refresh_token", "csrf_token", "role", "rubackup_server_address", "user_name"],
}


def _signed_in(call: Call, user: User, tokens: TokenPair) -> Answer:
    settings = call.services.settings
    data: dict[str, Any] = {
        "access_token": tokens.access_token,
        "csrf_token": tokens.csrf_token,
        "refresh_token": tokens.refresh_token,
        "role": list(user.roles),
        "rubackup_server_address": settings.server_address,
        "user_name": user.username,
    }
    return Answer(data, cookies=signin.session_cookies(tokens, settings.app_host))


@action("POST", "/auth/login", roles=None, body=StructBody(LoginBody), data=_SIGNED_IN)
async def login(call: Call) -> Answer:
    body: LoginBody = call.body
    user, tokens = await signin.login(call, body.rubackup_database, body.rubackup_user, body.password)
    return _signed_in(call, user, tokens)


@action("POST", "/auth/refresh", roles=None, data=_SIGNED_IN)
async def refresh(call: Call) -> Answer:
    """Both tokens in headers, or both in cookies; the documented header names."""
    if "Authorization" in call.headers:
        access = signin.bearer(call.headers.get("Authorization-Access-Token"))
        refresh_token = signin.bearer(call.headers.get("Authorization"))
    else:
        access = call.cookies.get(signin.ACCESS_COOKIE, "")
        refresh_token = call.cookies.get(signin.REFRESH_COOKIE, "")
    try:
        family, tokens = call.services.tokens.refresh(access, refresh_token)
    except RefreshTokenReused as error:
        await call.note(NoteLogout(user_name=error.user_name, reason="refresh token reused"))
        raise
    user = signin.user_of(call.services.journal.state, family)
    if user is None:
        call.services.tokens.revoke(family)
        raise verification_failed()
    return _signed_in(call, user, tokens)


@action("DELETE", "/auth/logout", roles=None)
async def logout(call: Call) -> Answer:
    """Either token of the login, in the header or in its cookie."""
    tokens = call.services.tokens
    if "Authorization" in call.headers:
        family = tokens.login_of(signin.bearer(call.headers.get("Authorization")))
    else:
        try:
            family = tokens.login_of(call.cookies.get(signin.ACCESS_COOKIE, ""))
        except AuthenticationFailed:
            family = tokens.login_of(call.cookies.get(signin.REFRESH_COOKIE, ""))
    tokens.revoke(family)
    await call.note(NoteLogout(user_name=family.user_name, reason="logout"))
    return Answer(message=call.message, cookies=signin.expired_cookies(call.services.settings.app_host))


METHODS = (login, refresh, logout)
