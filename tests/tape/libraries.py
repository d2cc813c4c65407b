"""The libraries that the tests of changers and drives run against. To add one, add a line to ``LIBRARIES``."""

from __future__ import annotations

import contextlib
import ctypes.util
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from drivers.scsi.iscsi import IscsiTransport
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary, serve_iscsi
from rbcore.scsi import ScsiTransport
from tests.tape import vtl


@dataclass
class LibraryUnderTest:
    """At least four slots, two drives and two import and export elements; drive n of ``drives`` is the n-th drive element.

    Cartridges ``barcodes`` lie in the first slots, at least two of them blank data cartridges of at least 16 MiB; the other slots
    but the last are empty.
    """

    changer: ScsiTransport
    drives: list[ScsiTransport]
    barcodes: list[str]


@contextlib.asynccontextmanager
async def target_library(directory: Path) -> AsyncIterator[LibraryUnderTest]:
    """tgtd over iSCSI."""
    with running_target(directory) as target:
        changer = IscsiTransport(target.changer_url)
        drives = [IscsiTransport(target.drive_url(number)) for number in range(target.drives)]
        try:
            yield LibraryUnderTest(changer, list(drives), [f"VT{n + 1:04d}L9" for n in range(target.media)])
        finally:
            for transport in (changer, *drives):
                await transport.aclose()


@contextlib.contextmanager
def running_target(directory: Path, *, ping_seconds: int = 0) -> Iterator[vtl.VirtualLibrary]:
    target = vtl.VirtualLibrary(directory, ping_seconds=ping_seconds)
    try:
        target.start()
        yield target
    finally:
        target.stop()


def need_target() -> None:
    if not vtl.is_installed():
        pytest.skip("NOT TESTED: the package tgt (a SCSI target) is not installed")
    need_libiscsi()


def need_libiscsi() -> None:
    if ctypes.util.find_library("iscsi") is None:
        pytest.skip("NOT TESTED: the package libiscsi7 is not installed")


BARCODES = [f"SI{number + 1:04d}L9" for number in range(4)]


def made_library(*, drives_lack: Iterable[int] = (), changer_lacks: Iterable[int] = ()) -> SimulatedLibrary:
    """Without delays, and an LTO-9 of 36 MB."""
    simulated = SimulatedLibrary(
        mechanics=NO_DELAY, capacity_factor=2e-6, drives_lack=drives_lack, changer_lacks=changer_lacks
    )
    for barcode in BARCODES:
        simulated.add_cartridge(barcode)
    return simulated


@contextlib.asynccontextmanager
async def simulated_library(
    _: Path, *, drives_lack: Iterable[int] = (), changer_lacks: Iterable[int] = ()
) -> AsyncIterator[LibraryUnderTest]:
    """In memory, spoken to directly."""
    simulated = made_library(drives_lack=drives_lack, changer_lacks=changer_lacks)
    yield LibraryUnderTest(simulated.changer, list(simulated.drives), BARCODES)


@contextlib.asynccontextmanager
async def served_library(_: Path) -> AsyncIterator[LibraryUnderTest]:
    """The simulated library behind its own iSCSI target."""
    simulated = made_library()
    async with trio.open_nursery() as nursery:
        serving = await nursery.start(serve_iscsi, simulated)
        transports = [IscsiTransport(serving.address(lun)) for lun in simulated.luns]
        try:
            yield LibraryUnderTest(transports[0], list(transports[1:]), BARCODES)
        finally:
            for transport in transports:
                await transport.aclose()
            nursery.cancel_scope.cancel()


def poor_library(directory: Path) -> AbstractAsyncContextManager[LibraryUnderTest]:
    """As the standard says, and without all that is optional: LOCATE, READ POSITION, ERASE, FORMAT MEDIUM, logs, memory, encryption,
    lists of commands; EXCHANGE, POSITION, ranges."""
    return simulated_library(
        directory,
        drives_lack=(0x2B, 0x92, 0x34, 0x19, 0x04, 0x4D, 0x8C, 0x8D, 0xA2, 0xA3, 0xB5),
        changer_lacks=(0xA6, 0x2B, 0x37, 0xA3),
    )


LIBRARIES: dict[str, Callable[[Path], AbstractAsyncContextManager[LibraryUnderTest]]] = {
    "poor": poor_library,
    "served": served_library,
    "simulated": simulated_library,
    "target": target_library,
}
NEEDS: dict[str, Callable[[], None]] = {"served": need_libiscsi, "target": need_target}
"""What skips the tests of a library that cannot be had here."""
