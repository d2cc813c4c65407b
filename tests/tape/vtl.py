"""The loopback library under the name that the tests of tape have for it."""

from __future__ import annotations

from rbmedia.loopback_library import DRIVES, IMPORT_EXPORT, PICKER, SLOTS, LoopbackLibrary, is_installed, program

VirtualLibrary = LoopbackLibrary

__all__ = ["DRIVES", "IMPORT_EXPORT", "PICKER", "SLOTS", "VirtualLibrary", "is_installed", "program"]
