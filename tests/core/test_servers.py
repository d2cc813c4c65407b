"""Media servers besides the main one: who may come with which name, and who may go."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore.commands import ChangeRecord, CreateRecord, DeleteRecords
from rbcore.commands_servers import AuthoriseMediaServer, MediaServerHello
from rbcore.commands_tape import AddTapeLibrary, DeviceFacts
from rbcore.decide.servers import SERVER_SEEN_STEP_NS, UNAUTHORISED_SERVERS_MAX
from rbcore.entities import MediaServer, UnauthorisedMediaServer
from rbcore.errors import AuthenticationFailed, InvalidRequest, NotFound, Refused, Unavailable
from tests.core.world import World


@pytest.fixture
def world() -> World:
    return World().installed()


def hello(**given: Any) -> MediaServerHello:
    facts: dict[str, Any] = {
        "hwid": "0123456789abcdef",
        "hostname": "second",
        "public_key": "ab" * 32,
        "address": "192.0.2.9",
        "version": "0.1",
    }
    return MediaServerHello(**{**facts, **given})


def authorised(world: World, **given: Any) -> int:
    command = hello(**given)
    world.run(command)
    return world.run(AuthoriseMediaServer(hostname=command.hostname)).ids[0]


def test_it_appears_is_authorised_by_name_and_goes_back(world: World) -> None:
    reply = world.run(hello())
    assert reply.data == {"id": 1, "authorised": False}
    server_id = world.run(AuthoriseMediaServer(hostname="second")).ids[0]
    assert not world.state.tables[UnauthorisedMediaServer.KIND]
    server = world.state.find(MediaServer, server_id)
    assert server is not None
    assert (server.hostname, server.type, server.public_key, server.created_ns) == (
        "second",
        "media",
        "ab" * 32,
        world.now_ns,
    )
    assert world.run(hello()).data == {"id": server_id, "authorised": True}
    world.run(ChangeRecord(resource="media_servers", id=server_id, changes={"description": "in the cellar"}))
    world.run(DeleteRecords(resource="media_servers", ids=[server_id]))
    (back,) = world.state.all(UnauthorisedMediaServer)
    assert (back.hostname, back.hwid, back.public_key) == ("second", "0123456789abcdef", "ab" * 32)
    again = world.run(AuthoriseMediaServer(hostname="second")).ids[0]
    assert again != server_id, "ids are never used twice"


def test_what_it_reports_is_recorded_when_it_is_news(world: World) -> None:
    world.run(hello())
    before = len(world.log)
    world.run(hello())
    assert len(world.log) == before
    world.run(hello(version="0.2"))
    world.now_ns += SERVER_SEEN_STEP_NS
    world.run(hello(version="0.2"))
    assert [one[4] for one in world.log[before:]] == ["media_server.appeared"] * 2
    server_id = world.run(AuthoriseMediaServer(hostname="second")).ids[0]
    before = len(world.log)
    world.run(hello(version="0.2"))
    assert len(world.log) == before
    world.run(hello(version="0.3", address="192.0.2.10"))
    server = world.state.find(MediaServer, server_id)
    assert server is not None
    assert (server.version, server.address) == ("0.3", "192.0.2.10")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"public_key": "cd" * 32}, "the key is not the one"),
        ({"hostname": "third"}, "authorised as second, not as third"),
        ({"hwid": "ab" * 8}, "that is the main server itself"),
    ],
)
def test_nobody_comes_with_anothers_identity(world: World, given: dict[str, str], says: str) -> None:
    authorised(world)
    before = len(world.log)
    with pytest.raises(AuthenticationFailed, match=says):
        world.run(hello(**given))
    assert [one[4] for one in world.log[before:]] == ["media_server.refused"]
    assert not world.state.tables[UnauthorisedMediaServer.KIND]


@pytest.mark.parametrize(
    "wrong",
    [
        {"hwid": "xyz"},
        {"public_key": "ab"},
        {"hostname": " "},
        {"hostname": "x" * 256},
        {"version": "\0"},
        {"address": "\ud800"},
    ],
)
def test_what_it_says_of_itself_is_checked(world: World, wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        world.run(hello(**wrong))


def test_a_name_that_two_wait_under_is_not_guessed(world: World) -> None:
    world.run(hello())
    world.run(hello(public_key="cd" * 32))
    with pytest.raises(Refused, match="unauthorised_media_servers 1, 2"):
        world.run(AuthoriseMediaServer(hostname="second"))
    world.run(DeleteRecords(resource="unauthorised_media_servers", ids=[1]))
    world.run(AuthoriseMediaServer(hostname="second"))
    world.run(hello(hwid="ffff0000ffff0000", public_key="ef" * 32))
    with pytest.raises(Refused, match="Media server 2 is authorised under the name second"):
        world.run(AuthoriseMediaServer(hostname="second"))
    with pytest.raises(NotFound, match="unauthorised media server not found"):
        world.run(AuthoriseMediaServer(hostname="nobody"))


def test_strangers_cannot_fill_the_log(world: World) -> None:
    for number in range(UNAUTHORISED_SERVERS_MAX):
        world.run(hello(hwid=f"{number:016x}"))
    with pytest.raises(Unavailable, match="media servers wait for authorisation"):
        world.run(hello(hwid="ff" * 8))
    world.run(hello(hwid=f"{0:016x}", version="9"))


def test_the_main_server_and_one_with_pools_stay(world: World) -> None:
    server_id = authorised(world)
    fields = {"pool_name": "far", "pool_type": "File system", "media_server": "second"}
    pool = world.run(CreateRecord(resource="pool_list", fields=fields)).ids[0]
    with pytest.raises(Refused) as refused:
        world.run(DeleteRecords(resource="media_servers", ids=[1, server_id]))
    assert set(refused.value.errors) == {"1", str(server_id)}
    assert "it is the main server" in refused.value.errors["1"][0]
    assert "pools belong to it (ids 2)" in refused.value.errors[str(server_id)][0]
    world.run(DeleteRecords(resource="pool_list", ids=[pool]))
    world.run(DeleteRecords(resource="media_servers", ids=[server_id]))


def test_a_tape_library_is_where_somebody_can_ask_it(world: World) -> None:
    authorised(world)
    fields = {"pool_name": "far", "pool_type": "Tape library", "media_server": "second"}
    world.run(CreateRecord(resource="pool_list", fields=fields))
    changer = DeviceFacts(device="/dev/sg1")
    with pytest.raises(InvalidRequest) as refused:
        world.run(AddTapeLibrary(pool="far", media_server="second", changer=changer, drives=[], elements=[]))
    assert "the devices of second cannot be asked" in refused.value.errors["media_server"][0]
