"""What somebody wants to be told."""

from __future__ import annotations

from rbcore.entities.base import Entity


class Notification(Entity, frozen=True, kw_only=True):
    KIND = "notification"
    event: str
    """The field of the rule or strategy that asks for it, ``notify_exception``."""
    object: str
    """Which rule or strategy."""
    text: str
    user_group: int = 0
    cc: str = ""
    status: str = "New"
    client_id: int = 0
    task_id: int = 0
    """What it is about; 0: no client, no task."""
    created_ns: int = 0
    sent_ns: int = 0
