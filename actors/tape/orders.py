"""What is done to a mounted cartridge besides reading and writing archives: labelling, formatting, erasing, a look for LTFS; and asking a drive who it is.

Each is an intent, the deed, and its outcome: after ``begin`` whatever was on the cartridge does not count any more, however it ends.
"""

from __future__ import annotations

import trio

from actors.tape.recording import Recorder
from drivers.scsi.drive import Drive
from drivers.tape import identify, label_cartridge
from rbcore.commands import (
    BeginErasing,
    BeginLabelling,
    CartridgeFacts,
    DriveFacts,
    EndErasing,
    EndLabelling,
)
from rbcore.entities import Pool, TapeCartridge, TapeDrive, TapeTask
from rbcore.errors import HardwareFailed, NotFound, RbError
from rbcore.ports import World
from rbcore.tape.session import CartridgeFormat, CartridgeSession, Contents, Identified, LabelOrder
from rbcore.vocabulary import TAPE_NATIVE_CAPACITY_BYTES, PoolType, TapeTaskType

CLEANING_POLL_SECONDS = 2.0


class TapeIdentity:
    """Who labels: the server, and the program."""

    def __init__(self, server_id: str, software: str, world: World) -> None:
        self.server_id = server_id
        self.software = software
        self.world = world


def format_of(pool: Pool | None) -> CartridgeFormat:
    return CartridgeFormat.LTFS if pool is not None and pool.pool_type == PoolType.TAPE_LTFS else CartridgeFormat.NATIVE


def found_facts(identified: Identified) -> CartridgeFacts:
    """What a look at a cartridge found, as the log takes it."""
    return CartridgeFacts(
        contents=identified.contents,
        label_id=identified.cartridge,
        use=identified.use,
        volume_tag=identified.volume_tag,
        server=identified.server,
        write_protected=identified.write_protected,
        detail=identified.detail,
    )


async def facts_of_drive(drive: Drive, entity: TapeDrive) -> DriveFacts:
    """Ask the drive. What it lacks is named for people."""
    capabilities = await drive.probe()
    identity = capabilities.identity
    lacks = [
        name
        for name, has in (
            ("LOCATE", capabilities.locates),
            ("ERASE", capabilities.erases),
            ("FORMAT MEDIUM", capabilities.formats),
            ("compression", capabilities.compression),
            ("TapeAlert", capabilities.tape_alert),
            ("volume statistics", capabilities.volume_statistics),
            ("cartridge memory", capabilities.cartridge_memory),
            ("encryption", capabilities.encryption),
        )
        if has is False
    ]
    return DriveFacts(
        device=entity.device,
        scsi_path=entity.scsi_path,
        vendor=identity.vendor,
        product=identity.product,
        revision=identity.revision,
        serial=identity.serial,
        element_address=entity.element_address,
        partitions_max=max(capabilities.partitions_max, entity.partitions_max),
        lacks=lacks,
    )


async def wait_cleaned(drive: Drive, seconds_max: float) -> None:
    """Until the drive has done with its cleaning cartridge. Raises ``HardwareFailed`` when it is not done by then, or says that it failed."""
    until = trio.current_time() + seconds_max
    while (sense := await drive.not_ready_because()) is not None:
        if (sense.key, sense.asc, sense.ascq) == (2, 0x30, 0x07):
            raise HardwareFailed(f"{drive.name}: the cleaning failed: {sense.text}. Use another cleaning cartridge.")
        if "clean" not in sense.text.lower() and not _becomes_ready(sense.text):
            return  # it has ejected it, or has nothing more to say about it
        if trio.current_time() >= until:
            raise HardwareFailed(f"{drive.name} was not done with its cleaning cartridge after {seconds_max:g} s.")
        await trio.sleep(CLEANING_POLL_SECONDS)


def _becomes_ready(text: str) -> bool:
    return "becoming ready" in text.lower() or "in progress" in text.lower()


# --- labels ---------------------------------------------------------------------------------------------------------------


async def label(
    drive: Drive,
    recorder: Recorder,
    identity: TapeIdentity,
    cartridge: TapeCartridge,
    drive_id: int,
    identified: Identified,
    *,
    reason: str = "it is going to be written",
) -> CartridgeSession:
    """Label the mounted cartridge in its pool's format. Raises what decide refuses and what the drive does; the outcome is recorded."""
    state, world = recorder.journal.state, identity.world
    pool = state.find(Pool, cartridge.pool)
    wanted = format_of(pool)
    await recorder.intend(BeginLabelling(cartridge_id=cartridge.id, drive_id=drive_id, format=wanted, reason=reason))
    order = LabelOrder(
        volume_tag=cartridge.volume_tag,
        pool=pool.pool_name if pool is not None else "",
        server=identity.server_id,
        software=identity.software,
        cartridge=world.randomness.token_bytes(16),
        created_ns=world.clock.now_ns(),
    )
    try:
        session = await label_cartridge(drive, order, identified, wanted)
    except RbError as error:
        await recorder.outcome(EndLabelling(cartridge_id=cartridge.id, format=wanted, failure=error.message))
        raise
    await recorder.outcome(
        EndLabelling(
            cartridge_id=cartridge.id,
            format=wanted,
            label_id=session.identified.cartridge,
            use=session.identified.use,
            capacity_bytes=TAPE_NATIVE_CAPACITY_BYTES.get(cartridge.type, 0),
        )
    )
    return session


# --- an operator's orders -------------------------------------------------------------------------------------------------


async def carry_out(
    drive: Drive,
    recorder: Recorder,
    identity: TapeIdentity,
    tape_task_id: int,
    drive_id: int,
    identified: Identified,
) -> str:
    """Format, Erase or Check LTFS; one sentence that says what came of it."""
    state = recorder.journal.state
    task = state.find(TapeTask, tape_task_id)
    cartridge = state.find(TapeCartridge, task.cartridge_id) if task is not None else None
    if task is None or cartridge is None:
        raise NotFound(f"Tape task {tape_task_id} or its cartridge is not there any more.")
    match task.task_type:
        case TapeTaskType.CHECK_LTFS:
            return f"cartridge {cartridge.volume_tag}: {_checked(await identify(drive))}"
        case TapeTaskType.ERASE:
            return await _erase(drive, recorder, cartridge, drive_id, identified, is_long=task.is_long_erase)
        case TapeTaskType.FORMAT:
            session = await label(
                drive, recorder, identity, cartridge, drive_id, identified, reason=f"ordered (tape task {task.id})"
            )
            await session.close()
            return f"cartridge {cartridge.volume_tag} is formatted: {session.format}"
    raise NotFound(f"A drive does not carry out {task.task_type}.")


def _checked(identified: Identified) -> str:
    if identified.contents is Contents.LTFS:
        return f"a valid LTFS volume ({identified.cartridge}). {identified.detail}".strip()
    return f"no LTFS volume; it is {identified.contents}. {identified.detail}".strip()


async def _erase(
    drive: Drive, recorder: Recorder, cartridge: TapeCartridge, drive_id: int, identified: Identified, *, is_long: bool
) -> str:
    await recorder.intend(
        BeginErasing(cartridge_id=cartridge.id, drive_id=drive_id, is_long=is_long, reason="ordered by an operator")
    )
    try:
        in_drive = await _erase_partitions(drive, identified, is_long=is_long)
    except RbError as error:
        await recorder.outcome(EndErasing(cartridge_id=cartridge.id, is_long=is_long, failure=error.message))
        raise
    await recorder.outcome(EndErasing(cartridge_id=cartridge.id, is_long=is_long))
    how = "by the drive" if in_drive else "by a filemark at its beginning, for the drive has no ERASE"
    return f"cartridge {cartridge.volume_tag} is erased {how}"


async def _erase_partitions(drive: Drive, identified: Identified, *, is_long: bool) -> bool:
    """A cartridge with partitions gets one again first: then one erase reaches all of it."""
    if identified.partitions > 1:
        await drive.format_medium()
    return await drive.erase(long=is_long)
