"""What an administrator browses on a protected host."""

from __future__ import annotations

import os

import pytest

from actors.agent.listing import list_filesystem, list_module_resources
from rbcore.errors import Refused


def test_mounted_file_systems_that_hold_data_are_what_the_module_finds() -> None:
    rows = list_module_resources("File system")
    assert "/" in [row["path"] for row in rows]
    assert not {"proc", "sysfs", "devpts", "cgroup2"} & {row["type"] for row in rows}
    assert all(os.path.ismount(row["path"]) for row in rows if os.path.isdir(row["path"]))
    assert [row["path"] for row in rows] == sorted({row["path"] for row in rows})
    root = next(row for row in rows if row["path"] == "/")
    assert set(root) == {"name", "path", "type", "device"}
    assert root["type"]
    assert list_filesystem("/")


@pytest.mark.parametrize("resource_type", ["LVM logical volume", "Block device", ""])
def test_a_type_without_a_module_is_refused(resource_type: str) -> None:
    with pytest.raises(Refused, match="no module"):
        list_module_resources(resource_type)
