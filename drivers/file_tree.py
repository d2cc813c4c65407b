"""File trees of this host (``rbcore.file_tree.Trees``): reading is in ``posix_source``, writing in ``posix_target``."""

from __future__ import annotations

import os

from drivers.posix_source import PosixSource
from drivers.posix_target import PosixTarget
from rbcore.errors import InvalidRequest
from rbcore.file_tree import SourceTree, TargetTree


class HostTrees:
    """Opens trees by their absolute paths."""

    def source(self, resource: str, *, one_file_system: bool = False) -> SourceTree:
        return PosixSource(_absolute(resource), one_file_system=one_file_system)

    def target(
        self, destination: str, *, numeric_owner: bool = False, root_metadata: bool = False, restore: str = ""
    ) -> TargetTree:
        return PosixTarget(
            _absolute(destination), numeric_owner=numeric_owner, root_metadata=root_metadata, restore=restore
        )


def _absolute(path: str) -> bytes:
    """The path as bytes: names that are no UTF-8 come as surrogate escapes. Raises ``InvalidRequest``."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"{path!r} is not an absolute path.")
    try:
        return os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{path!r} cannot be a path on this client.") from error
