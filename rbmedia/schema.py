"""The tables of the views: declared resources and append-only logs, under the revision of this program."""

from __future__ import annotations

from pathlib import Path

from eventlog.views import LOGS, ViewSchema
from rbcore.resources import RESOURCES
from rbmedia import __version__
from rbmedia.settings import Home


def view_schema() -> ViewSchema:
    """A new release makes its views anew: computed fields may have changed where declarations do not show it."""
    return ViewSchema(RESOURCES, LOGS, revision=__version__)


def view_path(home: Home) -> Path:
    """What the view files are called by (a symbolic link to the current one)."""
    return home.views / "views.sqlite"
