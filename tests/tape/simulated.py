"""CDBs by hand, for the tests of the simulated library: no command set of ours stands between the test and the device."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from drivers.simulated.tape import NO_DELAY, Mechanics, SimulatedLibrary
from rbcore.scsi import ScsiResult, ScsiTransport

LONG_SECONDS = 1e6


def said(result: ScsiResult) -> str:
    """``good``, ``conflict``, or ``key/asc/ascq`` with flags and information, as ``0/00/01 FM 5``."""
    if result.status != 2:
        return {0: "good", 0x18: "conflict"}[result.status]
    sense = result.sense
    words = [f"{sense[2] & 0x0F:x}/{sense[12]:02x}/{sense[13]:02x}"]
    words += [name for bit, name in ((0x80, "FM"), (0x40, "EOM"), (0x20, "ILI")) if sense[2] & bit]
    if sense[0] & 0x80:
        words.append(str(int.from_bytes(sense[3:7], "big", signed=True)))
    return " ".join(words)


def number(value: int, length: int) -> bytes:
    return value.to_bytes(length, "big", signed=value < 0)


@dataclass
class Device:
    """A transport with the commands spelt out; each answers ``said`` of the result, data are in ``data``."""

    transport: ScsiTransport
    data: bytes = b""
    residual: int = 0

    async def do(self, cdb: bytes, receive: int = 0, send: bytes = b"", timeout: float = LONG_SECONDS) -> str:
        result = await self.transport.execute(cdb, receive_bytes=receive, send=send, timeout_seconds=timeout)
        self.data, self.residual = result.data, result.residual_bytes
        return said(result)

    async def ready(self) -> str:
        return await self.do(bytes(6))

    async def clear(self) -> list[str]:
        """TEST UNIT READY until there is no unit attention any more; what it said."""
        heard = [await self.ready()]
        while heard[-1].startswith("6/"):
            heard.append(await self.ready())
        return heard

    # --- drive ---

    async def load(self, *, load: bool = True, immediate: bool = False) -> str:
        return await self.do(bytes([0x1B, immediate, 0, 0, load, 0]))

    async def unload(self) -> str:
        return await self.load(load=False)

    async def write(self, data: bytes, blocks: int | None = None) -> str:
        length = len(data) if blocks is None else blocks
        return await self.do(bytes([0x0A, blocks is not None]) + number(length, 3) + b"\0", send=data)

    async def read(self, length: int, *, fixed: bool = False, silent: bool = False, block: int = 0) -> str:
        cdb = bytes([0x08, fixed | silent << 1]) + number(length, 3) + b"\0"
        return await self.do(cdb, receive=length * block if fixed else length)

    async def filemarks(self, count: int = 1, *, immediate: bool = False) -> str:
        return await self.do(bytes([0x10, immediate]) + number(count, 3) + b"\0")

    async def rewind(self) -> str:
        return await self.do(b"\x01" + bytes(5))

    async def space(self, code: int, count: int, *, long: bool = False) -> str:
        if long:
            return await self.do(bytes([0x91, code, 0, 0]) + number(count, 8) + bytes(4))
        return await self.do(bytes([0x11, code]) + number(count, 3) + b"\0")

    async def locate(self, target: int, partition: int | None = None, kind: int = 0) -> str:
        flags = kind << 3 | (0 if partition is None else 2)
        return await self.do(bytes([0x92, flags, 0, partition or 0]) + number(target, 8) + bytes(4))

    async def position(self) -> tuple[int, int, int]:
        """Partition, object, filemarks before it."""
        assert await self.do(bytes([0x34, 0x06, *bytes(8)]), receive=32) == "good"
        raw = self.data
        return tuple(int.from_bytes(raw[at:end], "big") for at, end in ((4, 8), (8, 16), (16, 24)))  # type: ignore[return-value]

    async def block_bytes(self, length: int) -> str:
        parameters = bytes([0, 0, 0x10, 8, 0, 0, 0, 0, 0]) + number(length, 3)
        return await self.do(bytes([0x15, 0x10, 0, 0, len(parameters), 0]), send=parameters)

    async def mode(self, page: int) -> bytes:
        """The page with its header of two bytes."""
        assert await self.do(bytes([0x1A, 0x08, page, 0, 255, 0]), receive=255) == "good"
        return self.data[4:]

    async def select(self, page: bytes) -> str:
        parameters = bytes([0, 0, 0x10, 0]) + page
        return await self.do(bytes([0x15, 0x10, 0, 0, len(parameters), 0]), send=parameters)

    async def log(self, page: int) -> dict[int, bytes]:
        assert await self.do(bytes([0x4D, 0, 0x40 | page, 0, 0, 0, 0, 0xFF, 0xFF, 0]), receive=0xFFFF) == "good"
        found, at = {}, 4
        while at < len(self.data):
            length = self.data[at + 3]
            found[int.from_bytes(self.data[at : at + 2], "big")] = self.data[at + 4 : at + 4 + length]
            at += 4 + length
        return found

    async def alerts(self) -> list[int]:
        return [flag for flag, value in (await self.log(0x2E)).items() if value[0] & 1]

    async def sense(self) -> str:
        assert await self.do(bytes([0x03, 0, 0, 0, 252, 0]), receive=252) == "good"
        return said(ScsiResult(status=2, sense=self.data))

    async def attributes(self, partition: int = 0) -> dict[int, bytes]:
        cdb = bytes([0x8C, 0, 0, 0, 0, 0, 0, partition, 0, 0]) + number(0xFFFF, 4) + bytes(2)
        assert await self.do(cdb, receive=0xFFFF) == "good"
        found, at = {}, 4
        while at < len(self.data):
            length = int.from_bytes(self.data[at + 3 : at + 5], "big")
            found[int.from_bytes(self.data[at : at + 2], "big")] = self.data[at + 5 : at + 5 + length]
            at += 5 + length
        return found

    async def write_attribute(self, identifier: int, kind: int, value: bytes, partition: int = 0) -> str:
        row = number(identifier, 2) + bytes([kind]) + number(len(value), 2) + value
        parameters = number(len(row), 4) + row
        cdb = bytes([0x8D, 0, 0, 0, 0, 0, 0, partition, 0, 0]) + number(len(parameters), 4) + bytes(2)
        return await self.do(cdb, send=parameters)

    # --- changer ---

    async def move(self, source: int, target: int, timeout: float = LONG_SECONDS) -> str:
        return await self.do(b"\xa5\0\0\0" + number(source, 2) + number(target, 2) + bytes(4), timeout=timeout)

    async def exchange(self, source: int, first: int, second: int) -> str:
        return await self.do(b"\xa6\0\0\0" + number(source, 2) + number(first, 2) + number(second, 2) + bytes(2))

    async def initialize(self) -> str:
        return await self.do(b"\x07" + bytes(5))

    async def report(self, kind: int = 0, first: int = 0, *, tags: bool = True, devices: bool = False) -> str:
        flags = kind | (0x10 if tags else 0)
        cdb = bytes([0xB8, flags]) + number(first, 2) + b"\xff\xff" + bytes([devices]) + b"\0\xff\xff" + bytes(2)
        return await self.do(cdb, receive=0xFFFF)

    async def inventory(self) -> dict[int, str]:
        """Address -> barcode, of the full elements; ``?`` when it cannot be read."""
        assert await self.report() == "good"
        raw, found, at = self.data, {}, 8
        assert len(raw) == 8 + int.from_bytes(raw[5:8], "big")
        while at < len(raw):
            length, total = int.from_bytes(raw[at + 2 : at + 4], "big"), int.from_bytes(raw[at + 5 : at + 8], "big")
            for row in range(at + 8, at + 8 + total, length):
                if raw[row + 2] & 1:
                    tag = raw[row + 12 : row + 44].strip(b" \0").decode()
                    found[int.from_bytes(raw[row : row + 2], "big")] = tag or "?"
            at += 8 + total
        return found


DRIVE, STATION, SLOT = 256, 768, 1024


def library(*barcodes: str, mechanics: Mechanics = NO_DELAY, factor: float = 1e-6, **more: object) -> SimulatedLibrary:
    """Cartridges in the slots from 1024 on; a factor of 1e-6 makes an LTO-9 hold 18 MB."""
    made = SimulatedLibrary(mechanics=mechanics, capacity_factor=factor, **more)  # type: ignore[arg-type]
    for barcode in barcodes:
        made.add_cartridge(barcode)
    return made


async def loaded(made: SimulatedLibrary, slot: int = SLOT, drive: int = 0) -> Device:
    """The drive with the cartridge of the slot in it, ready, without unit attentions."""
    changer, device = Device(made.changer), Device(made.drives[drive])
    await changer.clear()
    assert await changer.move(slot, DRIVE + drive) == "good"
    await trio.sleep(max(0.0, made.drive_units[drive].ready_at() - trio.current_time()))
    assert (await device.clear())[-1] == "good"
    return device
