"""What is restored is what was backed up: every byte and every attribute of a real tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.agent.daemon import Host, MemoryDaemon
from tests.agent.trees import describe, make_everything

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and trusted attributes need root")


@needs_root
@pytest.mark.parametrize(
    ("crypto", "compression"), [("nocrypt", "None"), ("AES-256-GCM", "fast"), ("ChaCha20-Poly1305", "best")]
)
async def test_everything_a_file_system_can_hold(tmp_path: Path, crypto: str, compression: str) -> None:
    make_everything(tmp_path / "source")
    before = describe(tmp_path / "source")
    daemon = MemoryDaemon()
    host = Host(daemon)

    archive, outcome = await host.backup(str(tmp_path / "source"), crypto=crypto, compression=compression)

    assert outcome.outcome == "done", outcome
    assert outcome.problems == 0
    assert describe(tmp_path / "source") == before, "a backup changes nothing, not even access times"

    outcome = await host.restore(archive, str(tmp_path / "target"), crypto=crypto)

    assert outcome.outcome == "done", host.note_text
    assert describe(tmp_path / "target") == describe(tmp_path / "source")
    sparse = os.stat(tmp_path / "target" / "sparse")
    assert sparse.st_blocks * 512 < 1024 * 1024, "holes are holes again"
    assert host.stages == ["Execution", "Start_Transfer", "Transmission"] * 2
