"""Exit codes of the command, and the exceptions that lead to them."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """What a script may rely on. Values never change their meaning."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_ACCESS = 3
    DAMAGE = 4
    STILL_RUNNING = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "Done. With `--wait`: the task ended as `Done`.",
    Exit.FAILED: "The operation failed or was refused; the sentence on stderr says why. With `--wait`: the task ended otherwise.",
    Exit.USAGE: "The command line or a setting is wrong; nothing was done.",
    Exit.NO_ACCESS: "The daemon cannot be reached, its certificate is not trusted, or the login is missing, wrong or expired.",
    Exit.DAMAGE: "Damage was found: in the log, in the views, or in a backup. The output names it exactly.",
    Exit.STILL_RUNNING: "`--timeout` passed before the task ended; the task goes on.",
    Exit.INTERRUPTED: "Stopped by Ctrl-C. A task that was started goes on in the daemon.",
}


class CommandFailed(Exception):
    """Ends the command with a sentence for the operator and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
