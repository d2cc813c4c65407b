"""``client_bandwidth`` (reference 2.4, 3.14): how fast a client may send and receive, by the time of the day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rbcore.entities import Client, ClientBandwidth
from rbcore.resource import Integer, Reference, Resource, Text, Timestamp
from rbcore.resources import timetable as shared
from rbcore.resources.common import BY_CLIENT
from rbcore.state import State

_BANDWIDTH_MAX_KIBPS: Final = 2**31 - 1
_TIME_OF_DAY: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]")


def _windows_are_times(state: State, id: int, values: Mapping[str, Any]) -> str | None:
    for name in ("window_start", "window_end"):
        if not _TIME_OF_DAY.fullmatch(values[name]):
            return f"{name}: a time of the day is written HH:MM:SS, such as 14:33:31"
    return None


_BANDWIDTH: Final = ("client", "backup_bandwidth", "restore_bandwidth", "window_start", "window_end")
_WINDOW: Final = (
    "HH:MM:SS. A window that ends before it begins goes over midnight; one that ends when it begins is the whole day."
)

CLIENT_BANDWIDTH = Resource(
    name="client_bandwidth",
    kind=ClientBandwidth.KIND,
    title="Client Bandwidth",
    noun="bandwidth limit",
    entity=ClientBandwidth,
    fields=(
        Reference(
            name="client",
            attribute="client_id",
            required=True,
            to=Client.KIND,
            by="client",
            example="rubackup-client (525a99154f3505a2)",
            description="hostname (hwid).",
        ),
        Reference(name="client_hwid", attribute="client_id", to=Client.KIND, by="hwid"),
        Integer(
            name="backup_bandwidth",
            default=0,
            maximum=_BANDWIDTH_MAX_KIBPS,
            unit="KiB/s",
            description="What the client may send; 0: no limit.",
        ),
        Integer(
            name="restore_bandwidth",
            default=0,
            maximum=_BANDWIDTH_MAX_KIBPS,
            unit="KiB/s",
            description="What the client may receive; 0: no limit.",
        ),
        Text(name="window_start", default="00:00:00", max_length=8, description=_WINDOW, example="08:00:00"),
        Text(name="window_end", default="00:00:00", max_length=8, description=_WINDOW, example="18:00:00"),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    create=_BANDWIDTH,
    change=_BANDWIDTH,
    rules=(_windows_are_times,),
    deletable=True,
    manage=shared.ADMINISTRATORS_OF_RULES,
    searchable_name="id",
    scope=BY_CLIENT,
)
