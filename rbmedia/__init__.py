"""The command ``rbmedia`` and the composition root.

The only room that knows all the others: settings, secrets on disk, wiring of the daemon and of the agent, and a command line that
speaks the public REST API like any other client (only ``replay``, ``audit`` and ``views`` open the log themselves). Whatever
could live in a room below does.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rbmedia")
except PackageNotFoundError:  # run from an unpacked archive that was never installed
    __version__ = "0+unknown"
