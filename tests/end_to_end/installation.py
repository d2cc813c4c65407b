"""A real installation in a temporary folder: the daemon and agents as processes, the real command line, the real REST client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rbmedia import companion
from rbmedia.client import RestClient
from rbmedia.endpoint import Endpoint, read_endpoint
from rbmedia.settings import Home

PASSWORD = "correct horse battery staple"
START_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now. Fixed ones are for daemons that come back: agents remember where they were."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def until(check: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """The first true answer of ``check``; AssertionError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s: {what}")


class Installation:
    """One home. Processes are children that end with this one, whatever happens to it."""

    def __init__(self, folder: Path, *, fixed_ports: bool = False) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.make()
        self.ports = free_ports(3) if fixed_ports else [0, 0, 0]
        self.daemon: subprocess.Popen[bytes] | None = None
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: list[RestClient] = []

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RBMEDIA_", "APP_", "RB_"))}
        return {
            **kept,
            "RBMEDIA_HOME": str(self.home.path),
            "RBMEDIA_SESSION": str(self.folder / "session.json"),
            "RBMEDIA_SUPERUSER_PASSWORD": PASSWORD,
            "RBMEDIA_IMMUTABLE_FILES": "no",
            "RBMEDIA_PASSWORD": PASSWORD,
            "PYTHONFAULTHANDLER": "1",
        }

    # --- processes ----------------------------------------------------------------------------------------------------

    def start(self, *options: str) -> Endpoint:
        """Start the daemon and wait until it answers."""
        assert self.daemon is None or self.daemon.poll() is not None
        api, control, data = map(str, self.ports)
        self.daemon = self._spawn(
            "daemon", ["serve", "--port", api, "--control-port", control, "--data-port", data, *options]
        )
        return self.answering()

    def answering(self) -> Endpoint:
        daemon = self.daemon
        assert daemon is not None

        def look() -> Endpoint | None:
            if daemon.poll() is not None:
                raise AssertionError(f"the daemon ended with {daemon.returncode}:\n{self.console('daemon')}")
            endpoint = read_endpoint(self.home.daemon_file)
            return endpoint if endpoint is not None and endpoint.process == daemon.pid else None

        found: Endpoint = until(look, f"the daemon does not answer:\n{self.console('daemon')}")
        return found

    def start_agent(self, name: str = "agent") -> None:
        """Start an agent with a data directory of its own (``agent``: the home's)."""
        data = self.home.agent if name == "agent" else self.folder / name
        self.agents[name] = self._spawn(name, ["agent", "--data", str(data)])

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.console", "ab") as output:
            return companion.start([*arguments, "--until-stdin-closes"], output=output, environment=self.environment)

    def console(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{name}.console").read_text(errors="replace")[-4000:]
        return ""

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """As the kernel does when memory runs out: nothing of the process runs any more."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> int:
        """Stop the daemon in order; its exit code."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(40)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for process in [*self.agents.values(), *([self.daemon] if self.daemon else [])]:
            process.terminate()
        for process in [*self.agents.values(), *([self.daemon] if self.daemon else [])]:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill(process)
            if process.stdin is not None:
                process.stdin.close()

    # --- callers ------------------------------------------------------------------------------------------------------

    def client(self) -> RestClient:
        """A client that logs in when it has to."""
        endpoint = read_endpoint(self.home.daemon_file)
        assert endpoint is not None
        client = RestClient(endpoint.url, self.home.ca_certificate, password_of=lambda: ("rubackup", PASSWORD))
        self._clients.append(client)
        return client

    def command(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "rbmedia", *arguments],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def json(self, *arguments: str, **variables: str) -> Any:
        """Its ``--json`` answer; it has to succeed."""
        done = self.command(*arguments, "--json", **variables)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def authorised_client(self, client: RestClient, count: int = 1) -> list[str]:
        """Accept every agent that waits until ``count`` clients are connected; their display names, oldest first."""

        def look() -> list[str]:
            waiting = [row["id"] for row in client.rows("/unauthorised_clients")]
            if waiting:
                client.post("/clients/authorize", {"clients_ids": waiting})
            known = [row["client"] for row in client.rows("/clients") if row["online"]]
            return known if len(known) >= count else []

        found: list[str] = until(look, "the agents are not connected")
        return found


@contextlib.contextmanager
def installed(folder: Path, *, fixed_ports: bool = False) -> Iterator[Installation]:
    installation = Installation(folder, fixed_ports=fixed_ports)
    try:
        yield installation
    finally:
        installation.close()


def backup_body(client: str, resource: Path, backup_type: str = "full", crypto: str = "nocrypt") -> dict[str, Any]:
    return {
        "task": {
            "resource_type": "File system",
            "resource": str(resource),
            "client": client,
            "backup_type": backup_type,
            "pool": "Default",
            "crypto": crypto,
            "priority": 100,
            "storage_duration": "1 year",
            "archiving": False,
        }
    }


def restore_body(client: str, target: Path, only: list[str] | None = None) -> dict[str, Any]:
    return {
        "restore_task": {
            "target_client": client,
            "destination_path": str(target),
            "data_deployment": False,
            "granular_restore_files": only or [],
        }
    }
