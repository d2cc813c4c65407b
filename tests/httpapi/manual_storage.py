"""The manual's examples that speak of media servers and of what pools are made of."""

from __future__ import annotations

from httpapi.rubackup.catalogue import Fact
from rbcore.block_device import BlockDeviceFacts
from rbcore.commands_servers import AuthoriseMediaServer, MediaServerHello
from rbcore.entities import MediaServer
from tests.httpapi.house import House
from tests.httpapi.manual import Asked, Manual, maker, prepares
from tests.httpapi.manual_users import need


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


@prepares("POST /storage_block_devices")
async def _block_device(manual: Manual, fact: Fact) -> Asked:
    """The manual's device is empty, and its pool is of another type."""
    await need(
        manual,
        "pool_list",
        "pool_name",
        "blocks",
        pool_type="Block device",
        media_server="rubackup-server",
        meta_data_pool="Default",
    )
    device = f"/dev/disk{next(manual.numbers)}"
    manual.house.disks.there[device] = BlockDeviceFacts(real_path=device, size_bytes=10**12, contents=[], same_as=[])
    return await manual.plain(fact, body={"data": fact.request_example["data"] | {"device": device, "pool": "blocks"}})
