"""How the installation is set: the global configuration and the service mode."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from rbcore.entities.base import Entity
from rbcore.vocabulary import GLOBAL_CONFIGURATION, ConfigurationKey

CONFIGURATION_ID: Final = 1
"""There is one configuration."""


def _attribute(key: ConfigurationKey) -> tuple[str, type, Any]:
    types: dict[str, type] = {"integer": int, "boolean": bool}
    return key.name, types.get(key.type, str), key.default


Configuration = cast(
    "type[Entity]",
    msgspec.defstruct(
        "Configuration",
        [("service_mode", bool, False), *(_attribute(key) for key in GLOBAL_CONFIGURATION.values())],
        bases=(Entity,),
        namespace={
            "KIND": "configuration",
            "__doc__": "The service mode and every key of the global configuration, one attribute each. It is not there before the first change.",
        },
        module=__name__,
        frozen=True,
        kw_only=True,
    ),
)
