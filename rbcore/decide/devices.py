"""Block devices of pools: what may become one. Nothing is written to a device here, and nothing is written to it in this release at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rbcore.commands import Command, Context
from rbcore.commands_servers import AddBlockDevice
from rbcore.decide.decision import Decision, Draft
from rbcore.decide.fields import accept_all, invalid
from rbcore.entities import BlockDevice
from rbcore.errors import Unavailable
from rbcore.resources.devices import BLOCK_DEVICE_GIVEN, STORAGE_BLOCK_DEVICES, pool_takes_block_devices
from rbcore.state import State

_TITLE = STORAGE_BLOCK_DEVICES.title


def accept_block_device(state: State, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the request, resolved, as far as they can be judged without the device. Raises ``InvalidRequest``. Pure.

    Known fields that cannot be given here are ignored, as everywhere (reference 2.6).
    """
    wanted = [STORAGE_BLOCK_DEVICES.field(name) for name in BLOCK_DEVICE_GIVEN]
    ignored = {"id", *(one.name for one in STORAGE_BLOCK_DEVICES.fields)} - set(BLOCK_DEVICE_GIVEN)
    taken = {name: value for name, value in given.items() if name not in ignored}
    values = accept_all(state, wanted, taken, subject=_TITLE, creating=True)
    errors: dict[str, list[str]] = {}
    if problem := pool_takes_block_devices(state, 0, values):
        errors["pool"] = [problem]
    if any(part in ("", ".", "..") for part in values["device"].split("/")[1:]):
        errors["device"] = ["device: write it without '.', '..', double or trailing slashes"]
    known = state.by_key(BlockDevice, values["device"])
    if known is not None:
        errors["device"] = [f"device: it is block device {known.id} already"]
    if errors:
        raise invalid(_TITLE, errors)
    return values


def add(state: State, command: AddBlockDevice, context: Context) -> Decision:
    values = accept_block_device(state, command.fields)
    facts = command.facts
    if facts is None:
        raise Unavailable(f"{values['device']} was not asked what it is; repeat the request.")
    for path in facts.same_as:
        known = state.by_key(BlockDevice, path)
        if known is not None:
            sentence = (
                f"device: it is the same disk as block device {known.id} ({path}), or a part of it, or has it as a part"
            )
            raise invalid(_TITLE, {"device": [sentence]})
    if facts.contents and not values["overwrite_file_system"]:
        sentence = (
            f"overwrite_file_system: {values['device']} holds something: {', '.join(facts.contents)}. Say true when that may go; nothing "
            "is written before the pool is used"
        )
        raise invalid(_TITLE, {"overwrite_file_system": [sentence]})
    draft = Draft(state)
    device = BlockDevice(
        id=draft.take_id(BlockDevice), size_bytes=facts.size_bytes, contents=tuple(facts.contents), **values
    )
    draft.add_record(device)
    message = f"Resource with name '{_TITLE}' was created successfully!"
    return draft.decision(ids=[device.id], message=message)


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {AddBlockDevice: add}
