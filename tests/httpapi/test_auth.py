"""Sign-in: what a token is, what it takes, and what ends it (reference 4.3, 3.27)."""

from __future__ import annotations

import re
import stat
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.simulated.world import SeededRandomness
from httpapi import Tokens
from httpapi.signin import cookie_domain
from httpapi.tokens import FAMILIES_PER_USER_MAX
from rbcore.commands import CreateRecord, NoteLogin
from rbcore.errors import AuthenticationFailed
from rbcore.events import LoginFailed
from tests.httpapi.house import PASSWORD, USER, House, TestClock

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CLAIMS = {"fresh", "iat", "nbf", "exp", "jti", "type", "sub", "csrf", "family"}


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def test_login_answers_as_documented(house: House) -> None:
    answer = await house.login()
    assert answer.status == 200
    assert answer.message == ""
    assert set(answer.data) == {
        "access_token",
        "csrf_token",
        "refresh_token",
        "role",
        "rubackup_server_address",
        "user_name",
    }
    assert answer.data["role"] == ["superuser"]
    assert answer.data["user_name"] == USER
    access, refresh = claims_of(answer.data["access_token"]), claims_of(answer.data["refresh_token"])
    for claims, kind, seconds in ((access, "access", 900), (refresh, "refresh", 86400)):
        assert set(claims) == CLAIMS
        assert claims["type"] == kind
        assert claims["fresh"] is False
        assert claims["iat"] == claims["nbf"] == int(house.clock.seconds)
        assert claims["exp"] - claims["iat"] == seconds
        assert claims["sub"] == USER
        assert claims["csrf"] == answer.data["csrf_token"]
        assert UUID4.fullmatch(claims["jti"])
        assert re.fullmatch("[a-z]{16}", claims["family"])
    assert access["family"] == refresh["family"]
    assert access["jti"] != refresh["jti"]
    assert UUID4.fullmatch(answer.data["csrf_token"])
    assert jwt.get_unverified_header(answer.data["access_token"]) == {"alg": "HS256", "typ": "JWT"}


async def test_login_sets_session_cookies_of_the_parent_domain(house: House) -> None:
    answer = await house.login()
    cookies = answer.headers.getlist("Set-Cookie")
    assert {one.partition("=")[0] for one in cookies} == {"access_token_cookie", "refresh_token_cookie"}
    for one in cookies:
        assert {"HttpOnly", "Secure", "Path=/", "Domain=.rubackup.local"} <= set(one.split("; "))
        assert "Expires" not in one
        assert "Max-Age" not in one


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("api.rubackup.local", ".rubackup.local"),
        ("a.b.example.org", ".b.example.org"),
        ("localhost", ""),
        ("rubackup.local", ""),
        ("192.0.2.1", ""),
        ("::1", ""),
        ("[2001:db8::1]", ""),
    ],
)
def test_cookie_domain(host: str, domain: str) -> None:
    assert cookie_domain(host) == domain


@pytest.mark.parametrize(
    ("user", "password", "database"),
    [
        (USER, "wrong", "rubackup"),
        ("nobody", PASSWORD, "rubackup"),
        (USER, PASSWORD, "postgres"),
        (USER, "", "rubackup"),
        ("", "", ""),
        (USER, PASSWORD + " ", "rubackup"),
        (USER, "x" * 100_000, "rubackup"),
        ("ю" * 5000, "п", "rubackup"),
    ],
)
async def test_wrong_logins_are_all_refused_alike(house: House, user: str, password: str, database: str) -> None:
    answer = await house.login(user, password, database)
    assert (answer.status, answer.message, answer.data, answer.errors) == (401, "Verification failed", {}, {})
    assert "Set-Cookie" not in answer.headers


async def test_failed_logins_are_recorded_without_the_password(house: House) -> None:
    await house.login(USER, "a-wrong-password")
    last = list(house.log.read())[-1]
    assert last.type == LoginFailed.TYPE
    assert b"wrong password" in bytes(last.body)
    assert all(b"a-wrong-password" not in bytes(one.body) for one in house.log.read())


async def test_too_many_failures_block_even_the_right_password_for_a_while(house: House) -> None:
    for _ in range(5):
        assert (await house.login(USER, "wrong")).status == 401
    blocked = await house.login()
    assert (blocked.status, blocked.message) == (401, "Verification failed")
    house.clock.seconds += 30 * 60 + 1
    assert (await house.login()).status == 200


@pytest.mark.parametrize(
    "verb_path", [("GET", "pool_list"), ("GET", "pool_list/1"), ("DELETE", "pool_list/1"), ("POST", "task_queue")]
)
async def test_every_method_needs_token_and_csrf_value(house: House, verb_path: tuple[str, str]) -> None:
    verb, path = verb_path
    await house.login()
    good = house.headers
    refresh = f"Bearer {house.tokens['refresh_token']}"
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": good["Authorization"]},
        {"X-CSRF-TOKEN": good["X-CSRF-TOKEN"]},
        good | {"X-CSRF-TOKEN": "cafe"},
        good | {"X-CSRF-TOKEN": ""},
        good | {"Authorization": good["Authorization"][:-2] + "xx"},
        good | {"Authorization": refresh},
        good | {"Authorization": good["Authorization"].replace("Bearer", "Basic")},
        good | {"Authorization": "Bearer"},
        good | {"Authorization": "Bearer " + "A" * 5000},
    ]
    for headers in wrong:
        answer = await house.raw(verb, path, headers=headers)
        assert (answer.status, answer.message) == (401, "Verification failed"), headers


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
async def test_tokens_signed_otherwise_are_refused(house: House, algorithm: str) -> None:
    await house.login()
    claims = claims_of(house.tokens["access_token"])
    key = "" if algorithm == "none" else "x" * 64
    forged = jwt.encode(claims, key, algorithm=algorithm)
    answer = await house.raw("GET", "pool_list", headers=house.headers | {"Authorization": f"Bearer {forged}"})
    assert answer.status == 401


async def test_cookies_sign_in_with_the_csrf_header(house: House) -> None:
    await house.login()
    cookie = {"Cookie": f"access_token_cookie={house.tokens['access_token']}"}
    assert (await house.raw("GET", "pool_list", headers=cookie)).status == 401
    with_csrf = cookie | {"X-CSRF-TOKEN": house.tokens["csrf_token"]}
    assert (await house.raw("GET", "pool_list", headers=with_csrf)).status == 200


async def test_access_ends_after_15_minutes_and_refresh_brings_it_back(house: House) -> None:
    await house.login()
    house.clock.seconds += 899
    assert (await house.call("GET", "pool_list")).status == 200
    house.clock.seconds += 1
    assert (await house.call("GET", "pool_list")).status == 401
    assert (await refresh(house)).status == 200
    assert (await house.call("GET", "pool_list")).status == 200


async def refresh(house: House, tokens: dict[str, str] | None = None) -> Any:
    tokens = tokens or house.tokens
    headers = {
        "Authorization-Access-Token": f"Bearer {tokens['access_token']}",
        "Authorization": f"Bearer {tokens['refresh_token']}",
    }
    answer = await house.raw("POST", "auth/refresh", headers=headers)
    if answer.status == 200:
        house.tokens = answer.data
    return answer


async def test_refresh_does_not_extend_the_24_hours(house: House) -> None:
    await house.login()
    start = house.clock.seconds
    house.clock.seconds += 39
    answer = await refresh(house)
    claims = claims_of(answer.data["refresh_token"])
    assert claims["exp"] == int(start) + 86400
    assert claims["exp"] - claims["iat"] == 86361
    house.clock.seconds = start + 86400 - 10
    assert (await refresh(house)).status == 200
    assert claims_of(house.tokens["access_token"])["exp"] == int(start) + 86400
    house.clock.seconds = start + 86400
    assert (await refresh(house)).status == 401


async def test_reuse_of_an_old_refresh_token_ends_the_login(house: House) -> None:
    await house.login()
    stolen = dict(house.tokens)
    assert (await refresh(house)).status == 200
    assert (await refresh(house, stolen)).status == 401
    assert (await house.call("GET", "pool_list")).status == 401
    assert (await refresh(house)).status == 401


async def test_refresh_takes_cookies_and_refuses_a_mixture(house: House) -> None:
    await house.login()
    first = dict(house.tokens)
    await house.login()
    mixed = {
        "Authorization-Access-Token": f"Bearer {first['access_token']}",
        "Authorization": f"Bearer {house.tokens['refresh_token']}",
    }
    assert (await house.raw("POST", "auth/refresh", headers=mixed)).status == 401
    assert (await house.raw("POST", "auth/refresh")).status == 401
    only = {"Authorization": f"Bearer {house.tokens['refresh_token']}"}
    assert (await house.raw("POST", "auth/refresh", headers=only)).status == 401
    cookie = f"access_token_cookie={first['access_token']}; refresh_token_cookie={first['refresh_token']}"
    assert (await house.raw("POST", "auth/refresh", headers={"Cookie": cookie})).status == 200


@pytest.mark.parametrize("token", ["access_token", "refresh_token"])
async def test_logout_with_either_token_ends_both(house: House, token: str) -> None:
    await house.login()
    headers = {"Authorization": f"Bearer {house.tokens[token]}"}
    answer = await house.raw("DELETE", "auth/logout", headers=headers)
    assert answer.status == 200
    assert all("Max-Age=0" in one for one in answer.headers.getlist("Set-Cookie"))
    assert (await house.call("GET", "pool_list")).status == 401
    assert (await refresh(house)).status == 401
    assert (await house.raw("DELETE", "auth/logout", headers=headers)).status == 401


async def test_logout_touches_only_its_own_login(house: House) -> None:
    await house.login()
    other = dict(house.tokens)
    await house.login()
    await house.raw("DELETE", "auth/logout", headers={"Authorization": f"Bearer {house.tokens['access_token']}"})
    house.tokens = other
    assert (await house.call("GET", "pool_list")).status == 200


def test_restart_invalidates_all_tokens() -> None:
    clock = TestClock()
    before = Tokens(clock, SeededRandomness(1)).begin(1, "rubackup", "c")
    with pytest.raises(AuthenticationFailed):
        Tokens(clock, SeededRandomness(2)).verify_access(before.access_token, before.csrf_token)


def test_logins_are_bounded_per_user_and_the_oldest_ends() -> None:
    tokens = Tokens(TestClock(), SeededRandomness(1))
    foreign = tokens.begin(2, "other", "c")
    issued = [tokens.begin(1, "rubackup", "c") for _ in range(FAMILIES_PER_USER_MAX + 1)]
    assert len(tokens) == FAMILIES_PER_USER_MAX + 1
    with pytest.raises(AuthenticationFailed):
        tokens.verify_access(issued[0].access_token, issued[0].csrf_token)
    tokens.verify_access(issued[-1].access_token, issued[-1].csrf_token)
    tokens.verify_access(foreign.access_token, foreign.csrf_token)


@given(st.text(max_size=200), st.text(max_size=50))
def test_no_text_is_a_token(token: str, csrf: str) -> None:
    with pytest.raises(AuthenticationFailed):
        _TOKENS.verify_access(token, csrf)


_TOKENS = Tokens(TestClock(), SeededRandomness(3))


async def test_password_hashes_are_private_argon2id_files(house: House) -> None:
    files = list(house.secrets.iterdir())
    assert len(files) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert files[0].read_text().startswith("$argon2id$")


async def test_a_password_is_bounded_and_forgotten_on_removal(house: House) -> None:
    credentials = house.services.credentials
    with pytest.raises(Exception, match="Bad request"):
        await credentials.create("x" * 1025)
    known = await credentials.create("secret")
    assert await credentials.verify(known, "secret")
    assert not await credentials.verify(known, "Secret")
    await credentials.remove(known)
    assert not await credentials.verify(known, "secret")
    assert not await credentials.verify("../../etc/passwd", "secret")


async def test_the_block_follows_the_configuration_at_the_next_attempt(house: House) -> None:
    changes = {"data": {"wrong_auth_attempts_count": 2, "wrong_auth_block_period": 1}}
    assert (await house.call("PATCH", "global_configuration", changes)).status == 200
    for _ in range(2):
        assert (await house.login(USER, "wrong")).status == 401
    assert (await house.login()).status == 401, "two failures block now"
    house.clock.seconds += 61
    assert (await house.login()).status == 200, "for a minute"
    off = {"data": {"wrong_auth_attempts_count": 0}}
    assert (await house.call("PATCH", "global_configuration", off)).status == 200
    for _ in range(10):
        assert (await house.login(USER, "wrong")).status == 401
    assert (await house.login()).status == 200, "0: nobody is blocked"


async def test_the_block_is_of_one_name_and_one_address(house: House) -> None:
    for _ in range(5):
        assert (await house.login("olga", "wrong")).status == 401
    assert (await house.login()).status == 200
    for _ in range(5):
        note = NoteLogin(user_name=USER, address="203.0.113.9", succeeded=False, reason="wrong password")
        await house.execute(note, "user:")
    assert (await house.login()).status == 200, "failures from elsewhere lock nobody out here"


async def test_a_refresh_ends_with_the_password_it_began_with(house: House) -> None:
    await house.login()
    before = dict(house.tokens)
    answer = await house.call("PATCH", "users/change_password", {"new_password": "another long password"})
    assert answer.status == 200
    assert (await refresh(house, before)).status == 401
    assert (await house.login(USER, "another long password")).status == 200


async def test_a_refresh_tells_the_roles_of_now(house: House) -> None:
    await house.login()
    await house.execute(CreateRecord(resource="supervisors", fields={"supervisor": USER}))
    assert (await refresh(house)).data["role"] == ["superuser", "supervisor"]
