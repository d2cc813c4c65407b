"""The real curl against a real daemon: the manual's samples, and the lines of our README, as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rbmedia.endpoint import Endpoint
from tests.end_to_end.installation import PASSWORD, Installation, installed, until

README = Path(__file__).parents[2] / "README.md"
JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="NO CURL: Debian's package curl is not installed")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[Installation, Endpoint]]:
    """A daemon with an agent that nobody has authorised."""
    with installed(tmp_path) as installation:
        endpoint = installation.start("--with-agent")
        client = installation.client()
        until(lambda: list(client.rows("/unauthorised_clients")), "the agent does not report itself")
        yield installation, endpoint


def curl(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Status, body and header lines."""
    done = subprocess.run(
        ["curl", "-k", "-s", "-i", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    head, _, body = done.stdout.partition("\n\n")
    return int(head.split()[1]), json.loads(body), head


def signed_in(body: dict[str, Any]) -> dict[str, Any]:
    """The documented answer of login and refresh."""
    assert (body["is_error"], body["message"], body["errors"]) == (False, "", {})
    data: dict[str, Any] = body["data"]
    names = {"access_token", "csrf_token", "refresh_token", "role", "rubackup_server_address", "user_name"}
    assert data.keys() == names
    assert (data["role"], data["user_name"]) == (["superuser"], "rubackup")
    assert JWT.fullmatch(data["access_token"])
    assert JWT.fullmatch(data["refresh_token"])
    return data


@pytest.mark.slow
def test_the_manuals_samples(house: tuple[Installation, Endpoint]) -> None:
    installation, endpoint = house
    root = f"{endpoint.url}/api/v1"
    as_json = ("-H", "Content-Type: application/json")
    credentials = {"rubackup_database": "rubackup", "rubackup_user": "rubackup", "password": PASSWORD}

    status, body, head = curl("-X", "POST", f"{root}/auth/login", *as_json, "-d", json.dumps(credentials))
    assert status == 200
    first = signed_in(body)
    cookies = re.findall(r"(?im)^set-cookie: (\w+)=", head)
    assert sorted(cookies) == ["access_token_cookie", "refresh_token_cookie"]
    wrong = credentials | {"password": "12345"}
    status, body, _ = curl("-X", "POST", f"{root}/auth/login", *as_json, "-d", json.dumps(wrong))
    assert (status, body["is_error"], body["message"]) == (401, True, "Verification failed")

    access, refresh = f"Bearer {first['access_token']}", f"Bearer {first['refresh_token']}"
    both = ("-H", f"Authorization-Access-Token: {access}", "-H", f"Authorization: {refresh}")
    status, body, _ = curl("-X", "POST", f"{root}/auth/refresh", *both, "-d", "")
    assert status == 200
    second = signed_in(body)
    assert second["access_token"] != first["access_token"]

    (client,) = installation.authorised_client(installation.client())
    task = {
        "resource_type": "File system",
        "resource": "/home/",
        "client": client,
        "backup_type": "full",
        "pool": "Default",
        "crypto": "nocrypt",
        "priority": 100,
        "storage_duration": "1 Years",
        "archiving": False,
    }
    extensions = {
        "module_extensions": {
            "parameters": {
                "file_list": True,
                "numeric_owner": False,
                "use_snapshot": False,
                "ignore_errors_snapshot": True,
                "snapshot_type": "",
                "snapshot_size": 10,
                "script_before_snapshot": "",
                "script_after_snapshot": "",
                "script_error_snapshot": "",
            }
        },
        "common_modules_extensions": {
            "parameters": {
                "worker_parallelism": 8,
                "enable_multithreading": False,
                "enable_flexible_dedup": False,
                "network_parallelism": 8,
                "memory_threshold": 0,
                "deny_memory_exceed": False,
            }
        },
    }
    signed = ("-H", f"Authorization: Bearer {second['access_token']}", "-H", f"X-CSRF-TOKEN: {second['csrf_token']}")
    one_slash = f"{root}/task_queue/".replace("https://", "https:/")  # so the manual prints it
    sent = json.dumps({"data": {"task": task, **extensions}})
    status, body, _ = curl("-X", "POST", one_slash, *signed, *as_json, "-d", sent)
    assert status == 201
    assert (body["is_error"], body["errors"]) == (False, {})
    sentence = r"Resource with name 'Task Queue' was created successfully! TASK WAS ADDED TO QUEUE:(\d+)"
    queued = re.fullmatch(sentence, body["message"])
    assert queued is not None, body
    status, body, _ = curl(f"{root}/task_queue/{queued[1]}", *signed)
    assert (status, body["data"]["id"], body["data"]["resource"]) == (200, int(queued[1]), "/home/")


@pytest.mark.slow
def test_the_lines_of_the_readme(house: tuple[Installation, Endpoint], tmp_path: Path) -> None:
    installation, endpoint = house
    section = README.read_text().partition("## Ten lines of curl")[2].partition("\n## ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    assert len(lines) <= 12
    script = "\n".join(lines)
    assert "https://localhost:5656" in script
    script = script.replace("https://localhost:5656", f"https://localhost:{endpoint.url.rpartition(':')[2]}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**installation.environment, "PASSWORD": PASSWORD},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    answers = [json.loads(line) for line in done.stdout.replace("}{", "}\n{").splitlines()]
    assert [one["is_error"] for one in answers] == [False, False, False], done.stdout
    authorised, queued, repository = answers
    assert len(authorised["data"]["ids"]) == 1
    assert queued["message"].endswith(f"TASK WAS ADDED TO QUEUE:{queued['data']['task_id']}")
    assert repository["data"].keys() == {"items", "total", "page", "limit"}
