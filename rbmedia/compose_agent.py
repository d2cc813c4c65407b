"""The composition of the agent: whom it trusts, where it keeps what is its own, and stopping in order."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import trio

from actors.agent.program import AgentSettings, run_agent
from actors.agent.visit import visit
from drivers.allocator import keep_freed_memory
from drivers.world import RealWorld
from rbcore.messages import AskForRule, AskForRuleDeletion
from rbmedia import __version__
from rbmedia.endpoint import read_endpoint
from rbmedia.exits import CommandFailed, Exit
from rbmedia.settings import Home, Settings
from rbmedia.stopping import run_until_told

log = logging.getLogger("rbmedia")

LOCK_FILE = "agent.lock"
LOCK_SECONDS = 20.0
"""How long to wait for an agent on the same directory that is just ending."""


def plan(
    settings: Settings, *, ca_certificate: Path | None, fingerprint: str, data: Path | None, remote: bool
) -> AgentSettings:
    """What the agent is told. ``remote``: a daemon was named, so that nothing of this host's home is looked at."""
    home = Home(settings.home)
    running = None if remote else read_endpoint(home.daemon_file)
    if ca_certificate is None and not fingerprint and not remote:
        ca_certificate = home.ca_certificate
    if remote and ca_certificate is None and not fingerprint and not ((data or home.agent) / "ca.pem").exists():
        raise CommandFailed(
            "The agent is not told whom to trust. Give the daemon's pki/ca.pem with --ca, or its SHA-256 with --ca-fingerprint "
            "(the daemon's home has it in daemon.json).",
            Exit.USAGE,
        )
    return AgentSettings(
        data_directory=(data or home.agent).expanduser().absolute(),
        daemon_host=running.server_host if running else settings.server_host,
        daemon_port=running.control_port if running else settings.control_port,
        local_data=home.local_data if running else None,
        ca_certificate=ca_certificate,
        ca_fingerprint=fingerprint,
    )


def run(agent: AgentSettings, settings: Settings, *, until_stdin_closes: bool) -> int:
    """Run until a signal; the exit code. Raises :class:`CommandFailed`."""

    async def until_cancelled(stop: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, stop, nursery.cancel_scope)
            with await _only_agent_of(agent.data_directory):
                log.info("rbmedia agent %s on %s, data in %s", __version__, socket.gethostname(), agent.data_directory)
                await run_agent(agent, RealWorld())

    keep_freed_memory()
    return run_until_told(until_cancelled, "the agent", settings.stop_seconds, until_stdin_closes=until_stdin_closes)


def hand_in(agent: AgentSettings, request: AskForRule | AskForRuleDeletion) -> int:
    """Ask for a rule with the identity of this host's agent; the request's id. Raises what the daemon answers."""
    return trio.run(visit, agent, RealWorld(), request)


async def _cancel_on(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()


async def _only_agent_of(directory: Path) -> AbstractContextManager[None]:
    """The lock of a data directory: two agents with one identity would throw each other out for ever."""
    descriptor = _lock_file(directory)
    deadline = trio.current_time() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if trio.current_time() >= deadline:
                os.close(descriptor)
                raise CommandFailed(f"Another agent runs with the data directory {directory}.") from None
            await trio.sleep(0.1)
        else:
            return _held(descriptor)


def _lock_file(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _held(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
