"""``global_configuration`` (reference 1.21): one record, a field per key of the vocabulary."""

from __future__ import annotations

from typing import Any

from rbcore.entities import Configuration
from rbcore.resource import Boolean, Choice, Field, Integer, Resource, Text, YesNo
from rbcore.vocabulary import GLOBAL_CONFIGURATION, ConfigurationKey, Role

_PATTERNS = {
    "path": r"/.*",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]",
    "text": r"([0-9A-Fa-f]{2})*",
}
_LENGTHS = {"path": 4096, "time": 8, "text": 256}


def _field(key: ConfigurationKey) -> Field:
    """The only key of the type ``text`` is a hash in hexadecimal digits, or empty."""
    common: dict[str, Any] = {
        "name": key.name,
        "default": key.default,
        "example": key.default,
        "description": key.meaning,
        "in_list": False,
    }
    match key.type:
        case "integer":
            return Integer(
                minimum=key.minimum, maximum=key.maximum, multiple_of=key.multiple_of, unit=key.unit, **common
            )
        case "boolean":
            return Boolean(**common)
        case "yes_no":
            return YesNo(**common)
        case "choice":
            return Choice(values=key.values, **common)
        case "path" | "time" | "text":
            return Text(pattern=_PATTERNS[key.type], max_length=_LENGTHS[key.type], **common)


GLOBAL_CONFIGURATION_RECORD = Resource(
    name="global_configuration",
    kind=Configuration.KIND,
    title="Global Configuration",
    noun="configuration",
    entity=Configuration,
    fields=(
        Boolean(
            name="service_mode",
            default=False,
            description="No tasks are taken or given out; what runs goes on to its end.",
            in_list=False,
        ),
        *(_field(key) for key in GLOBAL_CONFIGURATION.values()),
    ),
    change=tuple(GLOBAL_CONFIGURATION),
    manage=frozenset({Role.SUPERUSER}),
    read=frozenset({Role.SUPERUSER, Role.SUPERVISOR}),
)
"""The record comes into being with the first change; before that every key has its default. Changed by ``rbcore.decide.configuration``."""
