"""What a real daemon refuses, over real TLS: wrong passwords, forged, expired and foreign tokens, other authorities, other agents."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from rbmedia.client import RestClient
from rbmedia.endpoint import read_endpoint
from rbmedia.exits import CommandFailed, Exit
from rbmedia.sessions import Session, SessionFile
from tests.end_to_end.installation import PASSWORD, Installation, installed, until

LOGIN = {"rubackup_database": "rubackup", "rubackup_user": "rubackup", "password": PASSWORD}


@pytest.fixture
def plain(running: Installation) -> Any:
    """httpx with nothing of ours in it."""
    endpoint = read_endpoint(running.home.daemon_file)
    assert endpoint is not None
    context = ssl.create_default_context(cafile=endpoint.ca_certificate)
    with httpx.Client(base_url=endpoint.url, verify=context, trust_env=False) as http:
        yield http


def tokens(plain: httpx.Client) -> dict[str, str]:
    answer = plain.post("/api/v1/auth/login", json=LOGIN)
    assert answer.status_code == 200
    data: dict[str, str] = answer.json()["data"]
    return data


def status_with(plain: httpx.Client, token: str, csrf: str) -> int:
    plain.cookies.clear()
    headers = {"Authorization": f"Bearer {token}", "X-CSRF-TOKEN": csrf}
    return plain.get("/api/v1/task_queue", headers=headers).status_code


@pytest.mark.parametrize(
    "change",
    [{"password": "wrong"}, {"password": ""}, {"rubackup_user": "nobody"}, {"rubackup_database": "postgres"}],
    ids=str,
)
def test_a_wrong_login_is_one_answer(plain: httpx.Client, change: dict[str, str]) -> None:
    answer = plain.post("/api/v1/auth/login", json={**LOGIN, **change})
    assert answer.status_code in (400, 401)
    assert answer.json()["is_error"] is True
    assert "access_token" not in answer.text


def test_tokens_are_checked_to_the_last_bit(plain: httpx.Client) -> None:
    good = tokens(plain)
    access, csrf = good["access_token"], good["csrf_token"]
    assert status_with(plain, access, csrf) == 200
    head, body, signature = access.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = {
        "another signature": f"{head}.{body}.{signature[::-1]}",
        "no signature": jwt.encode(claims, key="", algorithm="none"),
        "another key": jwt.encode(claims, "k" * 32, algorithm="HS256"),
        "another user": jwt.encode({**claims, "sub": "root"}, "k" * 32, algorithm="HS256"),
        "the refresh token": good["refresh_token"],
        "rubbish": "rubbish",
    }
    for name, token in forged.items():
        assert status_with(plain, token, csrf) == 401, name
    assert status_with(plain, access, "00000000-0000-4000-8000-000000000000") == 401
    assert status_with(plain, access, "") == 401


def test_a_logout_ends_both_tokens(plain: httpx.Client) -> None:
    good = tokens(plain)
    headers = {"Authorization": f"Bearer {good['access_token']}", "X-CSRF-TOKEN": good["csrf_token"]}
    assert plain.delete("/api/v1/auth/logout", headers=headers).status_code == 200
    assert status_with(plain, good["access_token"], good["csrf_token"]) == 401


def test_another_authority_is_not_trusted(running: Installation, tmp_path: Path) -> None:
    from drivers.tls import open_authority

    endpoint = read_endpoint(running.home.daemon_file)
    assert endpoint is not None
    other = open_authority(tmp_path / "pki", 1_800_000_000 * 10**9)
    with RestClient(endpoint.url, other.certificate_path) as client, pytest.raises(CommandFailed) as caught:
        client.login("rubackup", PASSWORD)
    assert caught.value.code == Exit.NO_ACCESS
    assert "not from the authority" in caught.value.message


def test_the_command_says_what_is_wrong_and_shows_no_traceback(running: Installation, tmp_path: Path) -> None:
    missing = running.command("tasks", "show", "999999")
    assert missing.returncode == Exit.FAILED
    wrong = running.command("login", RBMEDIA_PASSWORD="wrong", RBMEDIA_SESSION=str(tmp_path / "s.json"))
    assert wrong.returncode == Exit.NO_ACCESS
    nobody = running.command("tasks", "list", RBMEDIA_PASSWORD="", RBMEDIA_SESSION=str(tmp_path / "s.json"))
    assert nobody.returncode == Exit.NO_ACCESS
    assert "rbmedia login" in nobody.stderr
    usage = running.command("tasks", "list", "--limit", "many")
    assert usage.returncode == Exit.USAGE
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"https://localhost:{unused.getsockname()[1]}"
        gone = running.command("tasks", "list", "--server", away)
    assert gone.returncode == Exit.NO_ACCESS
    for done in (missing, wrong, nobody, usage, gone):
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 4


def test_a_login_that_ended_is_renewed_once_by_the_refresh_token(running: Installation, tmp_path: Path) -> None:
    sessions = SessionFile(tmp_path / "session.json")
    endpoint = read_endpoint(running.home.daemon_file)
    assert endpoint is not None
    with RestClient(endpoint.url, running.home.ca_certificate, sessions=sessions) as client:
        client.login("rubackup", PASSWORD)
        kept = sessions.last()
        assert kept is not None
        stale = Session(
            url=kept.url,
            user=kept.user,
            access_token=kept.access_token,
            refresh_token=kept.refresh_token,
            csrf_token="00000000-0000-4000-8000-000000000000",
            ca_certificate=kept.ca_certificate,
        )
        sessions.save(stale)
    with RestClient(endpoint.url, running.home.ca_certificate, sessions=sessions) as client:
        assert "items" in client.get("/task_queue")
    renewed = sessions.last()
    assert renewed is not None
    assert renewed.refresh_token != kept.refresh_token


def test_an_agent_with_anothers_identity_is_refused(tmp_path: Path) -> None:
    """The pinned hardware id with another key: recorded, refused, and the right agent goes on."""
    with installed(tmp_path, fixed_ports=True) as installation:
        installation.start()
        installation.start_agent()
        rest = installation.client()
        installation.authorised_client(rest)
        installation.kill(installation.agents["agent"])
        keys = installation.home.agent / "identity.key"
        shutil.copy2(keys, tmp_path / "identity.kept")
        raw = bytearray(keys.read_bytes())
        raw[0] ^= 1
        keys.write_bytes(raw)
        installation.start_agent()
        until(lambda: list(rest.rows("/unauthorised_clients")), "an agent with another key is another agent")
        assert [row["online"] for row in rest.rows("/clients")] == [False]


def test_two_agents_of_one_host_are_two_clients(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start()
        installation.start_agent("first")
        installation.start_agent("second")
        rest = installation.client()
        names = installation.authorised_client(rest, 2)
        assert len(set(names)) == 2


def test_a_second_daemon_on_the_same_home_is_refused(running: Installation) -> None:
    done = running.command("serve", "--port", "0", "--control-port", "0", "--data-port", "0")
    assert done.returncode == Exit.FAILED
    assert "open for appending by process" in done.stderr
    assert "Traceback" not in done.stderr
