"""The allocator's settings are taken, and buffers work as before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from drivers.allocator import keep_freed_memory
assert keep_freed_memory()
for size in (1 << 20, 4 << 20, 64 << 20):
    assert len(bytes(size)) == size
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NOT TESTED: the settings are glibc's")
def test_the_c_library_takes_the_settings() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
