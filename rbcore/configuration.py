"""What the configuration says at this moment: read it here, at every decision anew, and a change takes effect at once.

Belongs here: reading. Does not belong here: which keys there are (``rbcore.vocabulary``), how they are changed
(``rbcore.decide.configuration``).
"""

from __future__ import annotations

from typing import Any

from rbcore.entities import CONFIGURATION_ID, Configuration
from rbcore.errors import NotAllowedNow
from rbcore.state import State
from rbcore.vocabulary import GLOBAL_CONFIGURATION


def configured(state: State, key: str) -> Any:
    """Value of a key of the global configuration: what was set, or its default. Type and unit as in the vocabulary."""
    found = state.find(Configuration, CONFIGURATION_ID)
    return GLOBAL_CONFIGURATION[key].default if found is None else getattr(found, key)


def in_service_mode(state: State) -> bool:
    """Whether the whole installation is in service mode: nothing is given out, what runs goes on to its end (reference 3.15)."""
    found = state.find(Configuration, CONFIGURATION_ID)
    return found is not None and bool(getattr(found, "service_mode"))  # noqa: B009  attributes of a made struct


def refuse_in_service_mode(state: State) -> None:
    """Raise ``NotAllowedNow`` while no new tasks are taken."""
    if in_service_mode(state):
        raise NotAllowedNow(
            "The server is in service mode and takes no new tasks: end it first (PATCH global_configuration/service_mode)."
        )
