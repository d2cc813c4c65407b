"""What every command is, who sends it, and what comes back. Commands themselves: ``rbcore.commands``."""

from __future__ import annotations

from typing import Any

import msgspec


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base. Tagged by class name on the bus."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A command with its sender and its place in a conversation: what the journal's mailbox takes."""

    command: Any
    command_id: str
    actor: str
    causation: int = 0
    correlation: str = ""
    deadline_seconds: float = 30.0
    digest: str = ""
    """Of what the sender asked for, remembered with the answer: the same id with another digest is another question, and refused.
    Empty: not compared."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What ``decide`` may know besides the state: handed in, never fetched."""

    now_ns: int
    actor: str
    random: bytes
    """16 fresh random bytes, for names such as an archive's."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of a command, given after its events are on stable storage."""

    position: int
    """The last event of the command, or the head of the log when there was nothing to record."""
    ids: list[int] = []
    message: str = ""
    data: dict[str, Any] = {}
