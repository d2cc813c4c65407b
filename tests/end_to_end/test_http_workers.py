"""The API with workers, as processes: what is written is read at once wherever, each request is logged once, and every kind of end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.installation import PASSWORD, Installation, free_ports, installed, until

WORKERS = 2
API = "/api/v1"


def children(process: int) -> list[int]:
    """Process ids of its HTTP workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == process and b"http-worker" in line:
            found.append(int(folder.name))
    return found


def alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _gone(process: int) -> bool:
    return not alive(process)


class Client:
    """One connection, kept."""

    def __init__(self, installation: Installation, port: int, headers: dict[str, str] | None = None) -> None:
        trust = ssl.create_default_context(cafile=str(installation.home.ca_certificate))
        self.connection = HTTPSConnection("localhost", port, context=trust, timeout=20)
        self.connection.connect()
        self.connection.auto_open = 0  # a connection that is lost is to be seen
        self.headers = headers or {}

    def ask(self, verb: str, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
        raw = None if body is None else json.dumps(body)
        headers = self.headers | ({"Content-Type": "application/json"} if body is not None else {})
        self.connection.request(verb, API + path, raw, headers)
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        return answer.status, found["data"], {name.lower(): value for name, value in answer.getheaders()}

    def sign_in(self) -> None:
        status, data, _ = self.ask(
            "POST",
            "/auth/login",
            {"rubackup_database": "rubackup", "rubackup_user": "rubackup", "password": PASSWORD},
        )
        assert status == 200
        self.headers = {"Authorization": f"Bearer {data['access_token']}", "X-CSRF-TOKEN": data["csrf_token"]}


def port_of(installation: Installation) -> int:
    return int(installation.answering().url.rpartition(":")[2])


def connected(installation: Installation, count: int) -> list[Client]:
    """Clients of one login; enough of them are at all processes."""
    port = port_of(installation)
    first = Client(installation, port)
    first.sign_in()
    return [first, *(Client(installation, port, first.headers) for _ in range(count - 1))]


def lines(installation: Installation, number: int, text: str) -> int:
    """Access lines with that text of the daemon (0) or of a worker."""
    messages = installation.home.messages / (f"http-worker-{number}" if number else ".")
    try:
        return (messages / "access" / "rbmedia.access.log").read_text().count(text)
    except FileNotFoundError:
        return 0


def workers_of(installation: Installation) -> list[int]:
    """When all of them take connections."""
    daemon = installation.daemon
    assert daemon is not None

    def look() -> list[int]:
        found = children(daemon.pid)
        return found if len(found) == WORKERS and _all_serve(installation) else []

    found: list[int] = until(look, "the workers do not serve")
    return found


def _all_serve(installation: Installation) -> bool:
    port = port_of(installation)
    clients = [Client(installation, port) for _ in range(2 * WORKERS + 2)]
    before = [lines(installation, number, "server_hello") for number in range(1, WORKERS + 1)]
    for one in clients:
        one.ask("GET", "/server_hello/")
    after = [lines(installation, number, "server_hello") for number in range(1, WORKERS + 1)]
    for one in clients:
        one.connection.close()
    return all(now > then for now, then in zip(after, before, strict=True))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("workers")) as installation:
        installation.start("--http-workers", str(WORKERS))
        workers_of(installation)
        yield installation


def test_what_is_written_over_one_connection_is_read_over_any_other_at_once(served: Installation) -> None:
    clients = connected(served, 8)
    for number in range(300):
        status, made, head = clients[number % 8].ask(
            "POST", "/user_groups", {"data": {"groupname": f"group {number}", "description": ""}}
        )
        assert status == 201
        reader = clients[(number * 3 + 1) % 8]
        status, row, seen = reader.ask("GET", f"/user_groups/{made['id']}")
        assert (status, row["groupname"]) == (200, f"group {number}")
        assert int(seen["x-log-position"]) >= int(head["x-log-position"])
        status, page, _ = reader.ask("GET", f"/user_groups?limit=1&filter_data=id%3D%22{made['id']}%22")
        assert (status, page["total"]) == (200, 1)
    spread: list[int] = []

    def logged() -> bool:
        spread[:] = [lines(served, number, "GET /api/v1/user_groups") for number in range(WORKERS + 1)]
        return sum(spread) >= 600

    until(logged, "not every request has its line")
    assert sum(spread) == 600  # one each, wherever it was answered
    assert min(spread) > 0
    for one in clients:
        one.connection.close()


def open_files(process: int) -> list[str]:
    """Where its descriptors lead; one that is closed while they are listed is none of them."""
    found = []
    for one in (Path("/proc") / str(process) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(one))
    assert found, "it is alive"
    return found


def test_no_worker_is_given_a_secret(served: Installation) -> None:
    for process in workers_of(served):
        environment = (Path("/proc") / str(process) / "environ").read_bytes()
        assert PASSWORD.encode() not in environment.replace(b"RBMEDIA_PASSWORD=" + PASSWORD.encode(), b"")
        opened = open_files(process)
        assert not [one for one in opened if one.startswith(str(served.home.log)) or "secrets" in one]


def test_a_worker_that_is_killed_loses_its_own_connections_and_comes_back(served: Installation) -> None:
    victim, other = workers_of(served)
    clients = connected(served, 8)
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim), "it lives")
    lost = 0
    for one in clients:
        try:
            status = one.ask("GET", "/task_queue")[0]
        except (OSError, HTTPException):
            lost += 1
        else:
            assert status == 200
    assert 0 < lost < 8
    assert connected(served, 1)[0].ask("GET", "/task_queue")[0] == 200
    again = workers_of(served)
    assert other in again
    assert victim not in again
    for one in clients:
        one.connection.close()


def test_an_orderly_stop_ends_everything_and_the_port_is_free(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.ports = free_ports(3)
        installation.start("--http-workers", str(WORKERS))
        processes = workers_of(installation)
        clients = connected(installation, 6)
        assert installation.stop() == 0
        assert not [one for one in processes if alive(one)]
        assert "is started again" not in installation.console("daemon")
        installation.start("--http-workers", str(WORKERS))
        for one in clients:
            one.connection.close()


def test_a_daemon_that_is_killed_takes_its_workers_along_and_comes_back_at_once(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.ports = free_ports(3)
        for _ in range(3):
            installation.start("--http-workers", str(WORKERS))
            processes = workers_of(installation)
            clients = connected(installation, 6)
            assert installation.daemon is not None
            os.kill(
                processes[0], signal.SIGSTOP
            )  # one that cannot know it yet holds nothing that the next daemon needs
            installation.kill(installation.daemon)
            installation.start("--http-workers", "0")
            os.kill(processes[0], signal.SIGCONT)
            for one in processes:
                until(partial(_gone, one), "a worker lives on")
            assert connected(installation, 1)[0].ask("GET", "/task_queue")[0] == 200
            assert installation.stop() == 0
            for client in clients:
                client.connection.close()
