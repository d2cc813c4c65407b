"""Clients: appearing, pinning, and what happens to somebody who comes with another's name."""

from __future__ import annotations

import pytest

from rbcore.commands import AgentGone, AllAgentsGone, AuthoriseClients, DeleteRecords, KillTask
from rbcore.decide.clients import LAST_SEEN_STEP_NS, UNAUTHORISED_MAX
from rbcore.entities import Client, UnauthorisedClient
from rbcore.errors import AuthenticationFailed, InvalidRequest, NotFound, Refused, Unavailable
from tests.core.world import World, hello_of


@pytest.fixture
def world() -> World:
    return World().installed()


def types_of(world: World, after: int) -> list[str]:
    return [stored[4] for stored in world.log[after:]]


def client(world: World, id: int = 1) -> Client:
    found = world.state.find(Client, id)
    assert found is not None
    return found


def test_an_agent_appears_is_pinned_and_connects(world: World) -> None:
    reply = world.run(hello_of())
    assert reply.data == {"client_id": 1, "authorised": False}
    assert world.run(AuthoriseClients(ids=[1])).ids == [1]
    assert not world.state.tables["unauthorised_client"]
    assert client(world).resource_types == ("File system",)
    assert not client(world).online
    assert world.run(hello_of()).data == {"client_id": 1, "authorised": True}
    assert client(world).online
    before = len(world.log)
    world.run(hello_of())
    assert len(world.log) == before, "nothing new, nothing recorded"
    world.run(hello_of(hostname="renamed", resource_types=[]))
    assert types_of(world, before) == ["client.reported"]
    assert (client(world).hostname, client(world).resource_types) == ("renamed", ())
    world.run(AgentGone(client_id=1, reason="heartbeats stopped"))
    assert not client(world).online
    assert client(world).last_online_ns == world.now_ns


def test_a_waiting_agent_is_recorded_now_and_then_only(world: World) -> None:
    world.run(hello_of())
    before = len(world.log)
    for _ in range(5):
        world.run(hello_of())
    assert len(world.log) == before
    world.now_ns += LAST_SEEN_STEP_NS
    world.run(hello_of())
    waiting = world.state.find(UnauthorisedClient, 1)
    assert waiting is not None
    assert waiting.last_seen_ns == world.now_ns > waiting.first_seen_ns


def test_somebody_with_anothers_name_is_recorded_and_refused(world: World) -> None:
    world.client()
    before = len(world.log)
    known = client(world)
    with pytest.raises(AuthenticationFailed, match="known with another key"):
        world.run(hello_of(public_key="cd" * 32))
    assert types_of(world, before) == ["client.refused"]
    assert client(world) == known


def test_two_keys_of_one_hwid_stand_side_by_side_and_one_is_pinned(world: World) -> None:
    first = world.run(hello_of()).ids[0]
    second = world.run(hello_of(public_key="cd" * 32)).ids[0]
    assert first != second
    with pytest.raises(Refused, match="Two of the named clients"):
        world.run(AuthoriseClients(ids=[first, second]))
    world.run(AuthoriseClients(ids=[second]))
    assert client(world).public_key == "cd" * 32
    with pytest.raises(Refused, match="delete it first"):
        world.run(AuthoriseClients(ids=[first]))
    with pytest.raises(AuthenticationFailed):
        world.run(hello_of())


def test_authorisation_is_all_or_nothing(world: World) -> None:
    world.run(hello_of())
    with pytest.raises(NotFound) as missing:
        world.run(AuthoriseClients(ids=[1, 8, 9]))
    assert missing.value.data == {"ids": [8, 9]}
    assert not world.state.tables["client"]


def test_a_deleted_client_waits_again_and_gets_its_id_and_backups_back(world: World) -> None:
    world.client()
    other = world.client(hwid="55e05458152af100", hostname="beta", key="cd" * 32)
    backup = world.backed_up()
    running = world.queued(resource="/etc")
    with pytest.raises(Refused, match=f"tasks that have not ended belong to it .ids {running}"):
        world.run(DeleteRecords(resource="clients", ids=[1, other]))
    world.run(KillTask(task_id=running))
    world.run(DeleteRecords(resource="clients", ids=[1]))
    assert [one.hwid for one in world.state.all(UnauthorisedClient)] == ["525a99154f3505a2"]
    assert world.run(hello_of()).data["authorised"] is False
    (row,) = world.state.tables["unauthorised_client"]
    assert world.run(AuthoriseClients(ids=[row])).ids == [1]
    assert not world.state.tables["former_client"]
    assert world.state.tables["backup"][backup].client_id == 1
    third = world.client(hwid="1234567890abcdef", hostname="gamma", key="ef" * 32)
    assert third == 3


def test_at_start_nobody_is_connected(world: World) -> None:
    world.client()
    world.run(AllAgentsGone())
    assert not world.state.indexes.online_clients
    before = len(world.log)
    world.run(AllAgentsGone())
    world.run(AgentGone(client_id=1, reason="late"))
    world.run(AgentGone(client_id=77, reason="nobody"))
    assert len(world.log) == before


def test_the_list_of_waiting_clients_is_bounded() -> None:
    world = World().installed()
    for number in range(UNAUTHORISED_MAX):
        row = UnauthorisedClient(id=number + 1, hwid=f"{number:016x}", hostname="x", public_key="ab" * 32)
        world.state.replace("unauthorised_client", row.id, row)
    with pytest.raises(Unavailable, match="authorise or delete some"):
        world.run(hello_of())
    assert world.run(hello_of(hwid=f"{7:016x}", hostname="x")).data["authorised"] is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"hwid": "ABCDEF0123456789"},
        {"hwid": "short"},
        {"public_key": "ab"},
        {"hostname": ""},
        {"hostname": "x" * 300},
        {"os_version": "\ud800"},
        {"resource_types": ["x"] * 101},
        {"resource_types": ["\0"]},
    ],
)
def test_malformed_reports_are_refused(world: World, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        world.run(hello_of(**wrong))
