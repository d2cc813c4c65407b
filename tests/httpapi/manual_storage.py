"""The manual's examples that speak of media servers and of what pools are made of."""

from __future__ import annotations

from httpapi.rubackup.catalogue import Fact
from rbcore.commands_servers import AuthoriseMediaServer, MediaServerHello
from rbcore.entities import MediaServer
from tests.httpapi.house import House
from tests.httpapi.manual import Asked, Manual, maker, prepares


async def add_media_server(house: House, number: int, hostname: str = "", *, authorise: bool = True) -> int:
    """A media server reports itself; id of it, or of the unauthorised one."""
    hello = MediaServerHello(
        hwid=f"{number:016x}",
        hostname=hostname or f"media-{number}",
        public_key=f"{number:064x}",
        address="192.0.2.9",
        version="0.1",
    )
    reply = await house.execute(hello, f"media_server:{hello.hwid}")
    if authorise:
        reply = await house.execute(AuthoriseMediaServer(hostname=hello.hostname))
    return reply.ids[0]


@maker("media_servers")
async def _server(manual: Manual) -> int:
    return await add_media_server(manual.house, next(manual.numbers))


@maker("unauthorised_media_servers")
async def _unauthorised_server(manual: Manual) -> int:
    return await add_media_server(manual.house, next(manual.numbers), authorise=False)


@prepares("POST /media_servers/authorize")
async def _authorize_server(manual: Manual, fact: Fact) -> Asked:
    """The manual's host name is there once; whoever asks again asks for another."""
    name = "my_hostname"
    if manual.house.journal.state.by_key(MediaServer, name) is not None:
        name = f"another-{next(manual.numbers)}"
    await add_media_server(manual.house, next(manual.numbers), name, authorise=False)
    return await manual.plain(fact, body={"data": {"hostname": name}})
