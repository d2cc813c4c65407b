"""A tape library on loopback for demonstrations, measurements and tests: Debian's ``tgtd`` with SSC drives and an SMC changer, behind iSCSI.

It is another program than ours, in C, with its own idea of the standards. Needs the package
``tgt``. Every library has a port, a control socket and a directory of its own; ``stop`` goes by process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

TARGET = "iqn.2026-01.test:library"
PICKER, DRIVES, IMPORT_EXPORT, SLOTS = 1, 256, 768, 1024
"""First element addresses."""
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
UP_SECONDS_MAX = 15.0
CONTROL_PORT = "1"
"""Only part of the name of the control socket, which lies in a directory of its own."""


def program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


def is_installed() -> bool:
    return all(program(name) for name in ("tgtd", "tgtadm", "tgtimg"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class LoopbackLibrary:
    """Data cartridges VT0001L9.. lie in the first slots, the cleaning cartridge CLN001L9 in the last one."""

    directory: Path
    slots: int = 6
    drives: int = 2
    media: int = 4
    import_export: int = 2
    cartridge_mebibytes: int = 64
    ping_seconds: int = 0
    """Drop a session that does not answer a ping within that time, one ping each; 0: no pings."""
    port: int = field(default=0, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    inventory: dict[int, str] = field(default_factory=dict, init=False)
    """Element address -> barcode at the next start."""

    @property
    def changer_url(self) -> str:
        return f"iscsi://127.0.0.1:{self.port}/{TARGET}/{self.drives + 1}"

    def drive_url(self, number: int) -> str:
        """Drive 0 is the first one."""
        return f"iscsi://127.0.0.1:{self.port}/{TARGET}/{number + 1}"

    def start(self) -> None:
        """With the media that are there already, when it is not the first time; on the same port, too."""
        if not self.inventory:
            self._make_media()
        for _ in range(5):
            self.port = self.port or _free_port()
            if self._start_daemon():
                break
            self.kill()
            self.port = 0
        else:
            raise RuntimeError((self.directory / "tgtd.log").read_text(errors="replace")[-2000:])
        self._describe()

    def require_password(self, user: str, password: str) -> None:
        """CHAP, until the next start."""
        self._admin("--mode", "account", "--op", "new", "--user", user, "--password", password)
        self._admin("--mode", "account", "--op", "bind", "--tid", "1", "--user", user)

    def kill(self) -> None:
        """Power loss."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def __post_init__(self) -> None:
        # A unix socket's path may have 107 bytes: test directories are deeper than that.
        self._sockets = tempfile.mkdtemp(prefix="vtl-")

    def _run(self, *arguments: str) -> str:
        found = program(arguments[0])
        assert found, f"{arguments[0]} is not installed"
        done = subprocess.run(  # noqa: S603 - programs of the package tgt
            [found, *arguments[1:]], env=self._environment(), capture_output=True, text=True, timeout=20, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TGT_IPC_SOCKET": f"{self._sockets}/control"}

    def _admin(self, *arguments: str) -> str:
        return self._run("tgtadm", "-C", CONTROL_PORT, "--lld", "iscsi", *arguments)

    def _unit(self, operation: str, lun: int, *arguments: str) -> None:
        self._admin("--mode", "logicalunit", "--op", operation, "--tid", "1", "--lun", str(lun), *arguments)

    def _update(self, unit: int, /, **parameters: object) -> None:
        listed = ",".join(f"{key}={value}" for key, value in parameters.items())
        self._unit("update", unit, "--params", listed)

    def _make_media(self) -> None:
        (self.directory / "media").mkdir(parents=True)
        for number in range(self.media):
            barcode = f"VT{number + 1:04d}L9"
            self._make_image(self.directory / "media" / barcode, barcode, self.cartridge_mebibytes)
            self.inventory[SLOTS + number] = barcode
        self._make_image(self.directory / "media" / "CLN001L9", "CLN001L9", 1, kind="clean")
        self.inventory[SLOTS + self.slots - 1] = "CLN001L9"
        for number in range(self.drives):
            self._make_image(self.directory / f"drive{number}", f"EMPTY{number}", 1)
        (self.directory / "changer").write_bytes(bytes(1024))

    def _make_image(self, path: Path, barcode: str, mebibytes: int, kind: str = "data") -> None:
        self._run(
            *("tgtimg", "--op", "new", "--device-type", "tape", "--barcode", barcode),
            *("--size", str(mebibytes), "--type", kind, "--file", str(path)),
        )

    def _start_daemon(self) -> bool:
        """False when the port was taken meanwhile: the daemon lives on without it."""
        daemon = program("tgtd")
        assert daemon
        pings = f",nop_interval={self.ping_seconds},nop_count=1" if self.ping_seconds else ""
        with (self.directory / "tgtd.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the target itself
                [daemon, "-f", "-C", CONTROL_PORT, "--iscsi", f"portal=127.0.0.1:{self.port}{pings}"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + UP_SECONDS_MAX
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                return f"127.0.0.1:{self.port}" in self._admin("--mode", "portal", "--op", "show")
            except RuntimeError:
                time.sleep(0.05)
        return False

    def _describe(self) -> None:
        changer = self.drives + 1
        self._admin("--mode", "target", "--op", "new", "--tid", "1", "--targetname", TARGET)
        names = {"vendor_id": "VTL", "product_rev": "0001", "removable": 1}
        for lun in range(1, changer):
            backing = str(self.directory / f"drive{lun - 1}")
            self._unit("new", lun, "--device-type", "tape", "--backing-store", backing)
            self._update(lun, online=0)
            self._update(lun, product_id="ULTRIUM-TD9", scsi_sn=f"VTLDRV{lun:04d}", **names)
        self._unit("new", changer, "--device-type", "changer", "--backing-store", str(self.directory / "changer"))
        self._update(changer, product_id="LIBRARY", scsi_sn="VTLCHG0001", **names)
        self._update(changer, media_home=self.directory / "media")
        for kind, address, quantity in (
            (1, PICKER, 1),
            (4, DRIVES, self.drives),
            (3, IMPORT_EXPORT, self.import_export),
            (2, SLOTS, self.slots),
        ):
            self._update(changer, element_type=kind, start_address=address, quantity=quantity)
            for lun in range(1, changer) if kind == 4 else ():
                self._update(changer, element_type=4, address=DRIVES + lun - 1, tid=1, lun=lun)
        for address, barcode in self.inventory.items():
            kind = 2 if address >= SLOTS else 3
            self._update(changer, element_type=kind, address=address, barcode=barcode, sides=1)
        self._admin("--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "127.0.0.1")
