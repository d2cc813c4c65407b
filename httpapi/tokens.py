"""Access and refresh tokens (reference 4.3): JWT HS256 with exactly the documented claims, and what revokes them.

A login makes a *family*: its access tokens (15 minutes each) and refresh tokens (all of them ending 24 hours after the login,
however often it is refreshed) share the ``family`` and ``csrf`` claims. The server remembers families, not tokens: the one refresh
token that is good now, and whether the family still stands. Everything is in memory under a secret drawn at start, so
a restart ends every login, as documented.

Time comes from the clock port; PyJWT checks the signature only, because it reads the system clock itself.
"""

from __future__ import annotations

import hmac
from typing import Any, Literal

import jwt
import msgspec

from rbcore.errors import AuthenticationFailed
from rbcore.ports import Clock, Randomness

ACCESS_SECONDS = 900
REFRESH_SECONDS = 86400
FAMILIES_MAX = 10_000
FAMILIES_PER_USER_MAX = 256
"""At the bound the user's oldest login ends: a script that never logs out cannot push out anybody else."""

VERIFIED_MAX = 4096
"""Tokens whose signature is remembered as good. PyJWT takes 0.1 ms to look at one, a fifth of a whole detail GET."""

TokenType = Literal["access", "refresh"]


def verification_failed() -> AuthenticationFailed:
    """One answer for everything that is wrong with a credential: it must not tell which part was right."""
    return AuthenticationFailed("Verification failed")


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the manual's samples carry, no more."""

    fresh: bool
    iat: int
    jti: str
    type: TokenType
    sub: str
    nbf: int
    csrf: str
    exp: int
    family: str


class Family(msgspec.Struct):
    """One login."""

    name: str
    user_id: int
    user_name: str
    credential_id: str
    """The password it was made with; another one ends the login."""
    csrf: str
    expires: int
    """Unix seconds: 24 hours after the login."""
    refresh_jti: str = ""
    """The refresh token that is good now. An older one coming back means that somebody copied it."""


class TokenPair(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str
    csrf_token: str


class RefreshTokenReused(AuthenticationFailed):
    """An already exchanged refresh token came back: the family is revoked. Looks like any other failure from outside."""

    def __init__(self, user_name: str) -> None:
        super().__init__("Verification failed")
        self.user_name = user_name


class Tokens:
    """Issues and checks tokens; holds the logins that stand. Bounded: see ``FAMILIES_MAX``."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._secret = randomness.token_bytes(32)
        self._families: dict[str, Family] = {}
        """In order of login, so that the first is the oldest."""
        self._verified: dict[str, Claims] = {}

    def __len__(self) -> int:
        return len(self._families)

    def begin(self, user_id: int, user_name: str, credential_id: str) -> TokenPair:
        """Tokens of a new login."""
        now = self._now()
        self._make_room(user_id, now)
        family = Family(self._family_name(), user_id, user_name, credential_id, self._uuid4(), now + REFRESH_SECONDS)
        self._families[family.name] = family
        return self._issue(family, now)

    def verify_access(self, token: str, csrf: str) -> Family:
        """The login behind a valid access token that came with its CSRF value. Raises ``AuthenticationFailed``."""
        claims = self._read(token, "access")
        self._check_times(claims)
        family = self._standing(claims)
        if not hmac.compare_digest(csrf.encode(), family.csrf.encode()):
            raise verification_failed()
        return family

    def refresh(self, access_token: str, refresh_token: str) -> tuple[Family, TokenPair]:
        """Exchange a refresh token. The access token names the same login; it may have expired, that is what this is for."""
        refresh = self._read(refresh_token, "refresh")
        access = self._read(access_token, "access")
        self._check_times(refresh)
        family = self._standing(refresh)
        if access.family != family.name:
            raise verification_failed()
        if refresh.jti != family.refresh_jti:
            self.revoke(family)
            raise RefreshTokenReused(family.user_name)
        return family, self._issue(family, self._now())

    def login_of(self, token: str) -> Family:
        """The login behind a valid token of either type (logout takes both)."""
        claims = self._read(token, None)
        self._check_times(claims)
        return self._standing(claims)

    def revoke(self, family: Family) -> None:
        self._families.pop(family.name, None)

    def revoke_user(self, user_id: int) -> None:
        for family in [one for one in self._families.values() if one.user_id == user_id]:
            self.revoke(family)

    def _issue(self, family: Family, now: int) -> TokenPair:
        access = self._claims(family, "access", now, now + ACCESS_SECONDS)
        refresh = self._claims(family, "refresh", now, family.expires)
        family.refresh_jti = refresh.jti
        return TokenPair(self._sign(access), self._sign(refresh), family.csrf)

    def _claims(self, family: Family, type: TokenType, now: int, expires: int) -> Claims:
        return Claims(
            fresh=False,
            iat=now,
            jti=self._uuid4(),
            type=type,
            sub=family.user_name,
            nbf=now,
            csrf=family.csrf,
            exp=min(expires, family.expires),
            family=family.name,
        )

    def _sign(self, claims: Claims) -> str:
        return jwt.encode(msgspec.to_builtins(claims), self._secret, algorithm="HS256")

    def _read(self, token: str, type: TokenType | None) -> Claims:
        """Claims of a token that we signed. Says nothing about time or revocation."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify_signature(token)
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = claims
        if type is not None and claims.type != type:
            raise verification_failed()
        return claims

    def _verify_signature(self, token: str) -> Claims:
        try:
            payload: dict[str, Any] = jwt.decode(token, self._secret, algorithms=["HS256"], options=_SIGNATURE_ONLY)
            return msgspec.convert(payload, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as error:
            raise verification_failed() from error

    def _check_times(self, claims: Claims) -> None:
        """``nbf`` is not held against a clock that was set back a little: the token is ours and ``exp`` bounds it."""
        if self._now() >= claims.exp:
            raise verification_failed()

    def _standing(self, claims: Claims) -> Family:
        family = self._families.get(claims.family)
        if family is None:
            raise verification_failed()
        return family

    def _make_room(self, user_id: int, now: int) -> None:
        for family in [one for one in self._families.values() if one.expires <= now]:
            self.revoke(family)
        own = [one for one in self._families.values() if one.user_id == user_id]
        for family in own[: max(0, len(own) - FAMILIES_PER_USER_MAX + 1)]:
            self.revoke(family)
        while len(self._families) >= FAMILIES_MAX:
            self.revoke(next(iter(self._families.values())))

    def _now(self) -> int:
        return self._clock.now_ns() // 1_000_000_000

    def _family_name(self) -> str:
        """16 lower-case letters; five bits of each of 16 bytes would favour some, so bytes over 233 are drawn again."""
        letters: list[str] = []
        while len(letters) < 16:
            letters += [chr(97 + byte % 26) for byte in self._randomness.token_bytes(32) if byte < 234]
        return "".join(letters[:16])

    def _uuid4(self) -> str:
        """RFC 9562 version 4 from the randomness port."""
        raw = bytearray(self._randomness.token_bytes(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        text = raw.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
    "require": [],
}
