"""Users of a real daemon, over real TLS and a restart: who they are, what they see, and that their passwords are nowhere to be found."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from rbmedia.endpoint import read_endpoint
from tests.end_to_end.installation import PASSWORD, Installation, installed

SECRET = "the password of a user"


@contextmanager
def signed_in(installation: Installation, user: str, password: str) -> Iterator[httpx.Client]:
    """A plain HTTP client with the tokens of a login."""
    endpoint = read_endpoint(installation.home.daemon_file)
    assert endpoint is not None
    context = ssl.create_default_context(cafile=endpoint.ca_certificate)
    with httpx.Client(base_url=f"{endpoint.url}/api/v1", verify=context, trust_env=False) as http:
        login = {"rubackup_database": "rubackup", "rubackup_user": user, "password": password}
        answer = http.post("/auth/login", json=login)
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        http.headers["Authorization"] = f"Bearer {data['access_token']}"
        http.headers["X-CSRF-TOKEN"] = data["csrf_token"]
        yield http


def items(http: httpx.Client, path: str) -> list[dict[str, Any]]:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]["items"]
    return found


def test_users_live_through_a_restart_and_keep_their_limits(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start("--with-agent")
        installation.authorised_client(installation.client())
        with signed_in(installation, "rubackup", PASSWORD) as http:
            assert [one["groupname"] for one in items(http, "/user_groups")] == ["Nobody"]
            assert http.post("/client_groups", json={"data": {"name": "branch"}}).status_code == 201
            for user, group in (("olga", "No group"), ("ivan", "branch")):
                body = {"data": {"username": user, "user_password": SECRET}}
                made = http.post("/users", params={"role": "administrator", "client_group": group}, json=body)
                assert made.status_code == 201, made.text
        hashes = set(os.listdir(installation.home.secrets / "credentials"))
        assert len(hashes) == 3
        installation.stop()
        (installation.home.secrets / "credentials" / ("0" * 32)).write_text("what a crash left")
        installation.start("--with-agent")
        assert set(os.listdir(installation.home.secrets / "credentials")) == hashes, "the one that nobody has is gone"
        with signed_in(installation, "olga", SECRET) as http:
            (client,) = items(http, "/clients")
            assert client["group_id"] == "No group"
            assert http.get("/users").status_code == 403
            changed = http.patch("/users/change_password", json={"new_password": f"new {SECRET}"})
            assert changed.status_code == 200
            assert http.get("/clients").status_code == 401
        with signed_in(installation, "ivan", SECRET) as http:
            assert items(http, "/clients") == []
            assert http.get(f"/clients/{client['id']}").status_code == 404
        with signed_in(installation, "olga", f"new {SECRET}") as http:
            assert len(items(http, "/clients")) == 1
        installation.stop()
        for path in installation.folder.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path
