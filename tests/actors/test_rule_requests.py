"""A client asks for rules: over its agent's session, and by a visitor beside it. Under the virtual clock."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.client_session import SESSIONS_VISITING_MAX
from rbcore.archive.keys import public_key, sign
from rbcore.commands import ChangeRecord, CreateRecord, DeleteRecords, Order
from rbcore.entities import DeleteRuleRequest, NewRuleRequest, ScheduleRule
from rbcore.errors import AccessDenied, AuthenticationFailed, InvalidRequest, NotFound, ProtocolViolation, Unavailable
from rbcore.messages import (
    PROTOCOL_VERSION,
    Asked,
    AskForRule,
    AskForRuleDeletion,
    Challenge,
    ListFilesystem,
    Visit,
    Welcome,
    WorkStage,
    proof_message,
)
from tests.actors.test_sessions import Daemon, FakeAgent, authorised, daemon

RULE: dict[str, Any] = {
    "name": "my home",
    "resource_type": "File system",
    "resource": "/home/me",
    "backup_type": "full",
    "periodic_launch": "1 day",
}


async def execute(host: Daemon, command: Any) -> int:
    name = f"test at {host.journal.log.head}"
    reply = await host.journal.execute(Order(command=command, command_id=name, actor="user:x"))
    return reply.ids[0]


async def allow(host: Daemon, agent: FakeAgent) -> None:
    client_id = host.client(agent.hwid).id
    await execute(host, ChangeRecord(resource="clients", id=client_id, changes={"client_side_backup": True}))


async def rule_about(host: Daemon, agent: FakeAgent) -> int:
    fields = {**RULE, "client_id": f"host ({agent.hwid})", "pool_id": "Default"}
    return await execute(host, CreateRecord(resource="global_schedule", fields=fields))


def requests(host: Daemon) -> list[NewRuleRequest]:
    return list(host.journal.state.all(NewRuleRequest))


class FakeVisitor(FakeAgent):
    """Proves the identity of a client and says that it is not the agent."""

    async def prove(self, *, spoil: bytes = b"") -> Welcome:
        greeting = Visit(
            protocol=PROTOCOL_VERSION,
            hwid=self.hwid,
            hostname="host",
            public_key=public_key(self.seed),
            nonce=b"n" * 32,
        )
        challenge = await self.conversation.ask(greeting, 30)
        assert isinstance(challenge, Challenge)
        signature = sign(self.seed, proof_message(challenge.server_id, b"n" * 32, challenge.nonce) + spoil)
        welcome = await self.conversation.ask(self.proof(signature), 30)
        assert isinstance(welcome, Welcome)
        return welcome


async def visitor(host: Daemon, nursery: trio.Nursery, number: int = 1, seed: bytes = b"") -> FakeVisitor:
    found = FakeVisitor(host, number, seed)
    await found.connect(nursery)
    return found


async def test_a_client_without_the_right_is_refused_and_stays_connected(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        rule_id = await rule_about(host, agent)
        for message in (AskForRule(rule=RULE), AskForRuleDeletion(rule_id=rule_id)):
            with pytest.raises(AccessDenied, match="client_side_backup"):
                await agent.conversation.ask(message, 10)
        assert requests(host) == []
        assert host.sessions.online(host.client(agent.hwid).id)


async def test_a_request_waits_for_an_administrator(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        await allow(host, agent)
        asked = await agent.conversation.ask(AskForRule(rule=RULE | {"comment": "please"}), 10)
        assert isinstance(asked, Asked)
        (request,) = requests(host)
        assert (request.id, request.client_id) == (asked.request_id, host.client(agent.hwid).id)
        assert (request.resource, request.comment, request.pool_id) == ("/home/me", "please", 1)
        with pytest.raises(InvalidRequest) as wrong:
            await agent.conversation.ask(AskForRule(rule=RULE | {"min": 99, "client_id": "x"}), 10)
        assert set(wrong.value.errors) == {"min", "client_id"}
        assert len(requests(host)) == 1


async def test_a_request_that_is_repeated_over_another_connection_is_made_once(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        await allow(host, agent)
        first = await agent.conversation.ask(AskForRule(rule=RULE), 10, "the request")
        again = FakeAgent(host)
        await again.connect(nursery)
        assert (await again.prove()).authorised
        assert await again.conversation.ask(AskForRule(rule=RULE), 10, "the request") == first
        assert len(requests(host)) == 1


async def test_a_client_asks_for_the_end_of_its_own_rules_alone(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        one, two = await authorised(host, nursery, 1), await authorised(host, nursery, 2)
        await allow(host, one)
        theirs, own = await rule_about(host, two), await rule_about(host, one)
        for rule_id in (theirs, 999, -1):
            with pytest.raises(NotFound):
                await one.conversation.ask(AskForRuleDeletion(rule_id=rule_id), 10)
        asked = await one.conversation.ask(AskForRuleDeletion(rule_id=own, comment="moved away"), 10)
        (request,) = host.journal.state.all(DeleteRuleRequest)
        assert (request.id, request.rule_id, request.comment) == (asked.request_id, own, "moved away")
        assert host.journal.state.find(ScheduleRule, own) is not None


async def test_a_visitor_asks_while_the_agent_goes_on(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        nursery.start_soon(agent.beat)
        await allow(host, agent)
        head = host.journal.log.head
        guest = await visitor(host, nursery)
        assert (await guest.prove()).authorised
        assert host.journal.log.head == head, "a visit is no event"
        asked = await guest.conversation.ask(AskForRule(rule=RULE), 10)
        assert isinstance(asked, Asked)
        client = host.client(agent.hwid)
        listing = await host.sessions.ask(client.id, ListFilesystem(path="/etc"), 10)
        assert listing.rows == [{"name": "/etc"}], "the agent is who is asked"
        await trio.sleep(1)
        assert "closed" not in agent.heard
        assert guest.heard == []


async def test_a_visitor_alone_does_not_make_the_client_online(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        agent.conversation.link.close()
        await trio.sleep(5)
        guest = await visitor(host, nursery)
        await guest.prove()
        client = host.client(agent.hwid)
        assert not client.online
        assert not host.sessions.online(client.id)


@pytest.mark.parametrize("message", [WorkStage(task_id=1, stage="Execution"), ListFilesystem(path="/")])
async def test_a_visitor_may_do_nothing_else(autojump_clock: MockClock, message: Any) -> None:
    async with daemon() as (host, nursery):
        await authorised(host, nursery)
        guest = await visitor(host, nursery)
        await guest.prove()
        with pytest.raises(ProtocolViolation, match="not for a visitor"):
            await guest.conversation.ask(message, 10)
        await trio.sleep(5)
        assert guest.heard == ["closed"]


async def test_only_the_pinned_identity_visits(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        await authorised(host, nursery)
        head = host.journal.log.head
        thief = await visitor(host, nursery, 1, b"t" * 32)
        with pytest.raises(AuthenticationFailed):
            await thief.prove()
        stranger = await visitor(host, nursery, 7)
        with pytest.raises(AuthenticationFailed):
            await stranger.prove()
        spoiler = await visitor(host, nursery)
        with pytest.raises(AuthenticationFailed):
            await spoiler.prove(spoil=b"!")
        early = await visitor(host, nursery)
        with pytest.raises(ProtocolViolation, match="before"):
            await early.conversation.ask(AskForRule(rule=RULE), 10)
        assert host.journal.log.head == head


async def test_visitors_are_bounded(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        await authorised(host, nursery)
        for _ in range(SESSIONS_VISITING_MAX):
            await (await visitor(host, nursery)).prove()
        late = await visitor(host, nursery)
        with pytest.raises(Unavailable):
            await late.prove()


async def test_a_client_that_is_no_longer_authorised_asks_for_nothing(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        await allow(host, agent)
        guest = await visitor(host, nursery)
        await guest.prove()
        await execute(host, DeleteRecords(resource="clients", ids=[host.client(agent.hwid).id]))
        with pytest.raises(NotFound):
            await guest.conversation.ask(AskForRule(rule=RULE), 10)


def test_what_an_agent_asks_has_its_place_on_the_wire() -> None:
    for message in (AskForRule(rule=RULE), AskForRuleDeletion(rule_id=1), Asked(request_id=2)):
        raw = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(raw, type=type(message)) == message
