"""The composition of an HTTP worker: TLS and HTTP on connections that the daemon hands it, a reader of the views, and the channel to the daemon."""

from __future__ import annotations

import functools
import gc
import logging
import socket
from pathlib import Path
from typing import NoReturn

import trio

from drivers.world import RealWorld
from eventlog.views.reader import SqliteViewReader
from httpapi.application import read_methods
from httpapi.channel import Channel, Ended, FromDaemon, FromWorker, Hello, Taking
from httpapi.handover import HandedConnections
from httpapi.judging import Admission
from httpapi.relay import Relay, Times
from httpapi.server import Listen, serve
from rbmedia import __version__
from rbmedia.exits import CommandFailed
from rbmedia.schema import view_schema
from rbmedia.settings import Home
from rbmedia.stopping import run_until_told

log = logging.getLogger("rbmedia")

STOP_SECONDS = 7.0


def messages_of(home: Home, number: int) -> Path:
    """Log files of its own: two processes that turn one file over at midnight would lose a day."""
    return home.messages / f"http-worker-{number}"


def run(number: int, *, handed: int, channel: int) -> int:
    """Run on inherited descriptors until a signal or the end of the daemon; the exit code. Raises ``CommandFailed``."""
    program = functools.partial(_worker, handed, channel)
    return run_until_told(program, f"HTTP worker {number}", STOP_SECONDS, until_stdin_closes=False)


async def _worker(handed: int, descriptor: int, stop: trio.Event) -> None:
    channel: Channel[FromWorker, FromDaemon] = Channel(socket.socket(fileno=descriptor), FromDaemon)
    connections = HandedConnections(socket.socket(fileno=handed), lambda: channel.note(Ended()))
    first = await channel.receive()
    if not first:
        return  # the daemon is gone already
    if not isinstance(first[0], Hello):
        raise CommandFailed("The daemon did not begin with what a worker needs to know.")
    await _serve(connections, channel, first[0], stop)


async def _serve(
    connections: HandedConnections, channel: Channel[FromWorker, FromDaemon], hello: Hello, stop: trio.Event
) -> None:
    schema, world, times = view_schema(), RealWorld(), Times()
    if (hello.version, hello.views_fingerprint) != (__version__, schema.fingerprint):
        raise CommandFailed(
            f"The daemon runs version {hello.version}, this worker is {__version__}: the program was replaced. Restart the daemon."
        )
    views = SqliteViewReader(
        Path(hello.views), schema, world.threads, head=_of_the_daemon, position_at=_of_the_daemon, time_at=times
    )
    relay = Relay(channel, views, times, read_methods(), Admission(hello.requests_max), world.randomness)
    listen = Listen(host=hello.host, port=0, certificate=Path(hello.certificate), key=Path(hello.key))
    gc.collect()
    gc.freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        nursery.start_soon(_run_then, relay, stop)
        async with trio.open_nursery() as serving:
            await serving.start(functools.partial(serve, relay, listen, handed=connections, stop=stop.wait))
            channel.note(Taking(True))
            await stop.wait()
            channel.note(Taking(False))
        nursery.cancel_scope.cancel()
    await views.close()


async def _run_then(relay: Relay, stop: trio.Event) -> None:
    await relay.run()
    log.info("stopping: the daemon is gone")
    stop.set()


def _of_the_daemon(*_: int) -> NoReturn:
    raise AssertionError("positions and moments are found by the daemon")
