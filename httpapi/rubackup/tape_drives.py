"""Drives of tape libraries: what can be added, adding it, cleaning, and why the cartridge in one is mounted."""

from __future__ import annotations

import msgspec

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.listing import PARAMETERS, payload_of_rows
from httpapi.method import Method, Parameter, Schema, StructBody
from httpapi.records import not_found
from httpapi.rubackup.catalogue import action
from httpapi.rubackup.tape import (
    ADDING_METHOD,
    DRIVE_CANDIDATE,
    DRIVES,
    LIBRARIES,
    MEDIA_SERVER,
    check_media_server,
    describe,
    drive_candidate_row,
    drive_devices_of,
)
from httpapi.rubackup.tape_rows import changer_of
from httpapi.rubackup.why import ROW, explain_mount, within_reach
from rbcore.access import Acts
from rbcore.commands import AddTapeDrives, QueueDriveCleaning
from rbcore.entities import TapeLibrary
from rbcore.errors import InvalidRequest

_CANDIDATES: Schema = {
    "type": "object",
    "properties": {"tape_drives": {"type": "array", "items": DRIVE_CANDIDATE}},
    "required": ["tape_drives"],
}
_CHANGER_PATH = Parameter(
    name="medium_changer_sg_path",
    description="Address of the library's changer. With adding_method automatic: only drives that it says it has.",
)


@action(
    "GET",
    "/library_tape_drives/candidates",
    roles=DRIVES.manage,
    query=(MEDIA_SERVER, ADDING_METHOD, _CHANGER_PATH),
    data=_CANDIDATES,
    asks_devices=True,
)
async def candidates(call: Call) -> Answer:
    await check_media_server(call, call.query.get("media_server", ""))
    automatic = call.query.get("adding_method") != "manual"
    found = [one for one in await call.services.tape.candidates(automatic=automatic) if not one.is_changer]
    rows = [drive_candidate_row(one) for one in found]
    if "medium_changer_sg_path" in call.query and automatic and rows:
        devices = [one.facts.device for one in found]
        facts = await describe(call, call.query["medium_changer_sg_path"], devices, "medium_changer_sg_path")
        address = {one.device: one.element_address for one in facts.drives if one.element_address}
        rows = [row | {"sys_transfer_element": address[row["device"]]} for row in rows if row["device"] in address]
    return Answer({"tape_drives": rows})


class AddDrivesData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: list[int]
    tape_library_id: int


class AddDrivesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: AddDrivesData


_ADDED: Schema = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": schema.ID, "description": "The new drives, in order."}},
    "required": ["ids"],
}


@action("POST", "/library_tape_drives", roles=DRIVES.manage, body=StructBody(AddDrivesBody), data=_ADDED)
async def add(call: Call) -> Answer:
    data: AddDrivesData = call.body.data
    if data.tape_library_id < 1:
        raise refuse("Must be the id of a tape library.", "tape_library_id")
    await call.check(Acts(LIBRARIES.name, (data.tape_library_id,), "tape_library_id"))
    devices = drive_devices_of(call, data.ids, "ids")
    state = call.services.journal.state
    changer = changer_of(state, data.tape_library_id)
    if state.find(TapeLibrary, data.tape_library_id) is None or changer is None:
        raise not_found(LIBRARIES, data.tape_library_id)
    facts = await describe(call, changer.device, devices, "ids")
    try:
        reply = await call.submit(AddTapeDrives(library_id=data.tape_library_id, drives=facts.drives))
    except InvalidRequest as wrong:
        # The core names drives as POST tape_libraries does; here they stand in "ids".
        errors = {"ids" if name == "tape_drives_candidates_ids" else name: text for name, text in wrong.errors.items()}
        raise InvalidRequest("Bad request", errors=errors) from wrong
    return Answer({"ids": reply.ids}, reply.message or call.message, position=reply.position)


_QUEUED: Schema = {
    "type": "object",
    "properties": {"task_id": schema.ID | {"description": "A task of tl_task_queue."}},
    "required": ["task_id"],
}


@action("PATCH", "/library_tape_drives/{id}/clean", roles=DRIVES.manage, data=_QUEUED)
async def clean(call: Call) -> Answer:
    reply = await call.submit(QueueDriveCleaning(drive_id=call.id(DRIVES.noun)))
    return Answer({"task_id": reply.ids[0]}, call.message, position=reply.position)


@action(
    "GET",
    "/library_tape_drives/{id}/why",
    roles=DRIVES.read,
    query=PARAMETERS,
    data=schema.listing(ROW),
    addition="Why the newest mount of the drive was made: its events, its tape task and the task behind that, and what was rejected",
    group=DRIVES.title,
)
async def why(call: Call) -> Answer:
    drive_id = call.id(DRIVES.noun)
    log = call.services.journal.log
    asked = await call.position_asked()
    row, position = await call.row(DRIVES.name, drive_id, asked)
    if row is None:
        raise not_found(DRIVES, drive_id)
    rows = await explain_mount(log, drive_id, position)
    if call.is_limited:
        rows = within_reach(rows, f"tape_drive/{drive_id}", call.sees)
    return Answer(payload_of_rows(rows, {"limit": 1000} | call.query), position=position)


METHODS: tuple[Method, ...] = (candidates, add, clean, why)
