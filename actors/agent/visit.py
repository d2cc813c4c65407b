"""A visit to the daemon with the agent's identity: a user of the protected host asks for a rule while the agent goes on working."""

from __future__ import annotations

import socket
from typing import Any, Final

import trio

from actors.agent.handshake import prove
from actors.agent.identity import IDENTITY_FILE, Identity, open_identity
from actors.agent.program import AgentSettings, authority_of_daemon
from actors.conversation import Conversation, ParcelCodec
from actors.link import LinkClosed, Network
from actors.network import ClientNetwork
from rbcore.errors import NotFound, ProtocolViolation, Unavailable
from rbcore.messages import MESSAGE_BYTES_MAX, Asked, AskForRule, AskForRuleDeletion, Heartbeat, Parcel, Visit
from rbcore.ports import World

ANSWER_SECONDS: Final = 30.0


async def visit(
    settings: AgentSettings,
    world: World,
    request: AskForRule | AskForRuleDeletion,
    *,
    network: Network | None = None,
) -> int:
    """Hand ``request`` in; its id. Raises what the daemon answers, ``Unavailable`` when it is not there, ``NotFound`` without an agent."""

    def known_identity() -> Identity:
        if not (settings.data_directory / IDENTITY_FILE).exists():
            raise NotFound(f"No agent has its keys in {settings.data_directory}.")
        return open_identity(settings.data_directory, world.randomness, hwid=settings.hwid)

    identity = await world.threads.run(known_identity)
    if network is None:
        network = ClientNetwork(await authority_of_daemon(settings, world))
    try:
        link = await network.dial_control(settings.daemon_host, settings.daemon_port)
    except LinkClosed as error:
        raise Unavailable(
            f"The daemon at {settings.daemon_host}:{settings.daemon_port} is not there: {error}"
        ) from error
    conversation = Conversation(link, ParcelCodec(Parcel, MESSAGE_BYTES_MAX), _handle, world)
    asked: Any = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, conversation)
        try:
            hostname = settings.hostname or socket.gethostname()
            await prove(conversation, identity, hostname, world, Visit)
            asked = await conversation.ask(request, ANSWER_SECONDS)
        finally:
            nursery.cancel_scope.cancel()
            link.close()
    if not isinstance(asked, Asked):
        raise ProtocolViolation(f"the daemon answered {type(request).__name__} with {type(asked).__name__}")
    return asked.request_id


async def _listen(conversation: Conversation) -> None:
    """What ends the connection ends the questions that are open; they say so."""
    try:
        await conversation.run()
    except (LinkClosed, ProtocolViolation):
        return


async def _handle(body: Any, _message_id: str) -> None:
    if not isinstance(body, Heartbeat):
        raise ProtocolViolation(f"{type(body).__name__} is not for a visitor")
