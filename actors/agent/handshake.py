"""Proving who one is to the daemon: the same for an agent and for a visitor with its identity."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Final

from actors.agent.identity import Identity
from actors.conversation import Conversation
from rbcore.archive.keys import sign
from rbcore.errors import ProtocolViolation
from rbcore.messages import PROTOCOL_VERSION, Challenge, Hello, Proof, Visit, Welcome, proof_message
from rbcore.ports import World
from rbcore.vocabulary import ResourceType

HANDSHAKE_SECONDS_MAX: Final = 15.0
RESOURCE_TYPES: Final = (ResourceType.FILE_SYSTEM,)
"""What the modules of this agent can back up."""


async def prove(
    conversation: Conversation, identity: Identity, hostname: str, world: World, greeting: type[Hello] | type[Visit]
) -> Welcome:
    """Greet, sign the daemon's challenge, and be welcomed. Raises what the daemon answers, and ``ProtocolViolation``."""
    nonce = world.randomness.token_bytes(32)
    challenge = await conversation.ask(
        greeting(
            protocol=PROTOCOL_VERSION,
            hwid=identity.hwid,
            hostname=hostname,
            public_key=identity.public_key,
            nonce=nonce,
        ),
        HANDSHAKE_SECONDS_MAX,
    )
    if not isinstance(challenge, Challenge) or len(challenge.nonce) != 32:
        raise ProtocolViolation(f"the daemon answered {greeting.__name__} with something else than a Challenge")
    message = proof_message(challenge.server_id, nonce, challenge.nonce)
    welcome = await conversation.ask(
        Proof(
            signature=sign(identity.keys.signing_seed, message),
            os_type=platform.system(),
            os_version=platform.release(),
            agent_version=_version(),
            resource_types=list(RESOURCE_TYPES),
        ),
        HANDSHAKE_SECONDS_MAX,
    )
    if not isinstance(welcome, Welcome):
        raise ProtocolViolation("the daemon answered Proof with something else than a Welcome")
    return welcome


def _version() -> str:
    try:
        return importlib.metadata.version("rbmedia")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
