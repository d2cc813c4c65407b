"""Which devices a host can reach: configured targets and Linux generic devices; and that passwords stay in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.scsi.devices import HostScsiDevices
from drivers.scsi.unit import LogicalUnit
from drivers.world import WorkerThreads
from rbcore.errors import InvalidRequest, NotFound
from tests.tape.libraries import need_target, running_target
from tests.tape.vtl import VirtualLibrary


async def test_the_units_of_a_target_are_listed_and_opened(tmp_path: Path) -> None:
    need_target()
    with running_target(tmp_path) as target:
        name = target.changer_url.rpartition("/")[0]
        devices = HostScsiDevices([name], WorkerThreads(), directory=tmp_path)
        found = await devices.addresses()
        assert target.changer_url in found
        assert target.drive_url(0) in found
        unit = LogicalUnit(devices.open(target.changer_url))
        assert (await unit.identity()).device_type == 8
        await unit.aclose()


async def test_a_password_is_used_and_never_shown(tmp_path: Path) -> None:
    need_target()
    target = VirtualLibrary(tmp_path)
    try:
        target.start()
        target.require_password("tapes", "secret-password-1")
        name = target.changer_url.rpartition("/")[0]
        devices = HostScsiDevices(
            [name.replace("iscsi://", "iscsi://tapes%secret-password-1@")], WorkerThreads(), directory=tmp_path
        )
        found = await devices.addresses()
        assert target.changer_url in found
        assert not any("secret" in one for one in found)
        unit = LogicalUnit(devices.open(target.changer_url))
        assert (await unit.identity()).device_type == 8
        await unit.aclose()
    finally:
        target.stop()


async def test_a_target_that_is_gone_is_left_out(tmp_path: Path) -> None:
    need_target()
    devices = HostScsiDevices(["iscsi://127.0.0.1:1/iqn.2026-01.test:gone"], WorkerThreads(), directory=tmp_path)
    assert await devices.addresses() == []


async def test_generic_devices_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("sg10", "sg2", "sga", "sda"):
        (tmp_path / name).touch()
    devices = HostScsiDevices([], WorkerThreads(), directory=tmp_path)
    assert await devices.addresses() == [f"{tmp_path}/sg2", f"{tmp_path}/sg10"]


async def test_the_system_says_where_a_generic_device_is(tmp_path: Path) -> None:
    for name, place in (("sg2", "8:0:0:0"), ("sg10", "8:0:12:1"), ("sg3", "somewhere else")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "device").symlink_to(f"../../../{place}")
    devices = HostScsiDevices([], WorkerThreads(), generic=tmp_path)
    found = [await devices.scsi_path(f"/dev/{name}") for name in ("sg2", "sg10", "sg3", "sg4")]
    assert found == ["[8:0:0:0]", "[8:0:12:1]", "", ""]
    assert await devices.scsi_path("iscsi://127.0.0.1/iqn.2026-01.test:library/3") == "3"


@pytest.mark.parametrize(
    "address", ["/dev/sda", "sg1", "", "iscsi://", "iscsi://h/t", "/dev/sg1/../sda", "iscsi://u%p@h/t/1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest):
        HostScsiDevices([], WorkerThreads()).open(address)


def test_a_target_that_nobody_configured_is_not_opened() -> None:
    with pytest.raises(NotFound, match="configured"):
        HostScsiDevices([], WorkerThreads()).open("iscsi://127.0.0.1/iqn.2026-01.test:library/1")
