"""Connections on their way from the daemon, which accepts them, to the HTTP worker that will serve them.

One process accepts and gives each connection to whoever has the fewest. Where several accept on one socket the kernel wakes them all and the one that happens to be awake
takes everything: of eight connections to a daemon and two workers one worker got none. It also keeps the port the daemon's alone: when the daemon is gone, the port is free at
once, whatever its workers still do.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

_MARK = b"c"
"""A descriptor cannot travel without a byte."""


class Place:
    """The daemon's end of one worker: where to hand a connection, and how many the worker has."""

    def __init__(self, end: socket.socket) -> None:
        """``end`` is one of a pair that keeps messages apart."""
        end.setblocking(False)
        self._end = end
        self.connections = 0

    def take(self, stream: trio.SocketStream) -> bool:
        """Hand it over; False: it cannot take one at this moment."""
        try:
            socket.send_fds(self._end, [_MARK], [stream.socket.fileno()])
        except OSError:  # it does not take what was handed before, or is gone
            return False
        stream.socket.close()
        self.connections += 1
        return True

    def ended(self) -> None:
        self.connections -= 1


class Handover:
    """Which process gets the next connection."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def join(self, place: Place) -> None:
        """The worker takes connections."""
        self._places.append(place)

    def leave(self, place: Place) -> None:
        """It takes none any more, if it did."""
        if place in self._places:
            self._places.remove(place)

    @property
    def connections(self) -> int:
        """Of all workers."""
        return sum(one.connections for one in self._places)

    def take(self, stream: trio.SocketStream, own: int) -> bool:
        """Hand the connection to a worker, unless the daemon, which has ``own``, should serve it itself.

        A connection of the daemon's weighs as many as there are workers, because it judges for all of them.
        """
        if not self._places:
            return False
        place = min(self._places, key=lambda one: one.connections)
        return place.connections <= own * len(self._places) and place.take(stream)


class HandedConnections(trio.abc.Listener[trio.SocketStream]):
    """The worker's end: a listener whose connections the daemon has accepted."""

    def __init__(self, end: socket.socket, ended: Callable[[], None]) -> None:
        """``ended`` is called whenever one has ended: the daemon counts."""
        end.setblocking(False)
        self._end = end
        self.ended = ended

    async def accept(self) -> trio.SocketStream:
        """Waits for ever when the daemon is gone: that is for others to notice."""
        while True:
            await trio.lowlevel.wait_readable(self._end)
            try:
                _, descriptors, _, _ = socket.recv_fds(self._end, len(_MARK), 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            if not descriptors:
                await trio.sleep_forever()
            return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptors[0])))

    async def aclose(self) -> None:
        self._end.close()
        await trio.lowlevel.checkpoint()
