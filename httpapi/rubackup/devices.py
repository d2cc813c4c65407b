"""Block devices of pools: adding one, which asks the device first."""

from __future__ import annotations

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.method import Method, Schema
from httpapi.records import FieldsBody
from httpapi.rubackup.catalogue import action
from rbcore.commands import Reply
from rbcore.commands_servers import AddBlockDevice
from rbcore.decide.devices import accept_block_device
from rbcore.entities import BlockDevice
from rbcore.errors import InvalidRequest
from rbcore.resources.devices import BLOCK_DEVICE_GIVEN, STORAGE_BLOCK_DEVICES
from rbcore.targets import targets_of

_ADDED: Schema = {"type": "object", "properties": {"id": schema.ID}, "required": ["id"]}


@action(
    "POST",
    "/storage_block_devices",
    roles=STORAGE_BLOCK_DEVICES.manage,
    body=FieldsBody(STORAGE_BLOCK_DEVICES, BLOCK_DEVICE_GIVEN, creating=True),
    data=_ADDED,
)
async def add(call: Call) -> Answer:
    """A request that cannot be right touches no device. What the device says is judged together with the rest, in one decision."""
    state = call.services.journal.state
    command = AddBlockDevice(fields=call.body)
    await call.check(*(targets_of(state, command) or ()))
    if call.repeats:
        return _added(await call.submit(command))
    values = accept_block_device(state, command.fields)
    known = [one.device for one in state.all(BlockDevice)]
    try:
        facts = await call.services.block_devices.look(values["device"], known)
    except InvalidRequest as wrong:
        raise refuse(wrong.message, "device") from wrong
    return _added(await call.submit(AddBlockDevice(fields=command.fields, facts=facts)))


def _added(reply: Reply) -> Answer:
    return Answer({"id": reply.ids[0]}, reply.message, position=reply.position)


METHODS: tuple[Method, ...] = (add,)
