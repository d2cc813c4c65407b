"""The libraries that the tests of changers and drives run against. To add one, add a line to ``LIBRARIES``."""

from __future__ import annotations

import contextlib
import ctypes.util
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers.scsi.iscsi import IscsiTransport
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
    need_target()
    with running_target(directory) as target:
        changer = IscsiTransport(target.changer_url)
        drives = [IscsiTransport(target.drive_url(number)) for number in range(target.drives)]
        try:
            yield LibraryUnderTest(changer, list(drives), [f"VT{n + 1:04d}L9" for n in range(target.media)])
        finally:
            for transport in (changer, *drives):
                await transport.aclose()


@contextlib.contextmanager
def running_target(directory: Path) -> Iterator[vtl.VirtualLibrary]:
    target = vtl.VirtualLibrary(directory)
    try:
        target.start()
        yield target
    finally:
        target.stop()


def need_target() -> None:
    if not vtl.is_installed():
        pytest.skip("NOT TESTED: the package tgt (a SCSI target) is not installed")
    if ctypes.util.find_library("iscsi") is None:
        pytest.skip("NOT TESTED: the package libiscsi7 is not installed")


LIBRARIES: dict[str, Callable[[Path], AbstractAsyncContextManager[LibraryUnderTest]]] = {
    "target": target_library,
}
