"""Scripts of a task that run on the protected host: before the tree is read, after, and when reading fails.

Module parameters ``script_before_snapshot``, ``script_after_snapshot``, ``script_error_snapshot``. The moment the names call a
snapshot is here the reading of the tree. A value is the absolute path of an executable on the host, nothing more: no shell and no
arguments, and the file must belong to root or the agent's user and be writable by nobody else, so that who may order backups
does not thereby run what he likes. A script that fails before the reading ends the task; its output stands in the task's journal.
"""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from typing import Any, Final

import trio

from actors.agent.port import ScriptSettings, WorkControl
from rbcore.errors import InvalidRequest, Refused
from rbcore.ports import World

_OUTPUT_LINES_MAX: Final = 200
_READ_BYTES: Final = 4096
_KILL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Scripts:
    """Absolute paths; empty: none."""

    before: str = ""
    after: str = ""
    error: str = ""

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Scripts:
        """From the task's module parameters. Raises ``InvalidRequest``."""
        found = {}
        for field in ("before", "after", "error"):
            name = f"script_{field}_snapshot"
            value = parameters.get(name) or ""
            if not isinstance(value, str) or (value and not value.startswith("/")) or "\0" in value:
                raise InvalidRequest(f"{name} must be the absolute path of a script.", errors={name: ["Not a path."]})
            found[field] = value
        return cls(**found)


class ScriptRunner:
    """The three moments of one task."""

    def __init__(self, scripts: Scripts, settings: ScriptSettings, control: WorkControl, world: World) -> None:
        self._scripts = scripts
        self._settings = settings
        self._control = control
        self._world = world

    async def before(self) -> None:
        """Raises ``Refused`` when the script may not run, fails, or takes too long."""
        await self._run(self._scripts.before)

    async def after(self) -> None:
        """What was read stays good when this one fails: the journal says so."""
        await self._run_and_tell(self._scripts.after)

    async def error(self) -> None:
        """For cleaning up; runs also when the work was cancelled, for at most the time a script may take."""
        if self._scripts.error:
            with trio.CancelScope(shield=True):
                await self._run_and_tell(self._scripts.error)

    async def _run_and_tell(self, path: str) -> None:
        try:
            await self._run(path)
        except Refused as refused:
            await self._control.notes("warning", [refused.message])

    async def _run(self, path: str) -> None:
        if not path:
            return
        if not self._settings.allowed:
            raise Refused(f"Script {path} is not run: the settings of this client do not allow scripts.")
        await self._world.threads.run(lambda: check_script(path))
        output = bytearray()
        with trio.move_on_after(self._settings.timeout_seconds) as timeout:
            code = await self._execute(path, output)
        text = bytes(output).decode("utf-8", "backslashreplace")
        lines = [f"{os.path.basename(path)}: {line}" for line in text.splitlines()[:_OUTPUT_LINES_MAX]]
        if lines:
            await self._control.notes("info", lines)
        if timeout.cancelled_caught:
            raise Refused(f"Script {path} took longer than {self._settings.timeout_seconds:g} s and was ended.")
        if code != 0:
            raise Refused(f"Script {path} ended with code {code}.")

    async def _execute(self, path: str, output: bytearray) -> int:
        """Run it, keep the first ``output_bytes_max`` bytes of what it prints, and end it when cancelled."""
        try:
            process = await trio.lowlevel.open_process(
                [path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
            )
        except OSError as error:
            raise Refused(f"Script {path} cannot be started: {os.strerror(error.errno or 0)}.") from error
        assert process.stdout is not None
        try:
            async with process.stdout:
                while chunk := await process.stdout.receive_some(_READ_BYTES):
                    output += chunk[: self._settings.output_bytes_max - len(output)]
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                with trio.move_on_after(_KILL_SECONDS, shield=True):
                    await process.wait()
                if process.returncode is None:
                    process.kill()


def check_script(path: str) -> None:
    """Raises ``Refused`` unless the file is one that only root or this user can have written."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise Refused(f"Script {path} cannot be run: {os.strerror(error.errno or 0)}.") from error
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
        raise Refused(f"Script {path} is not an executable file.")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise Refused(f"Script {path} can be changed by others than root and the agent's user: it is not run.")
