"""How fast a client may send and receive at a time of the day (reference 2.4, 3.14). Pure.

Times of the day are UTC, as all times without a zone. Where several windows are open, ``bandwith_client_limit`` says whether the lowest or the
highest of their limits holds; a window without a limit in the direction counts as the highest.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from rbcore.configuration import configured
from rbcore.entities import ClientBandwidth
from rbcore.state import State

Direction = Literal["backup", "restore"]

KIB: Final = 1024
DAY_SECONDS: Final = 86_400


def seconds_of(time_of_day: str) -> int:
    """``14:33:31`` as seconds since midnight."""
    hours, minutes, seconds = map(int, time_of_day.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def is_open(limit: ClientBandwidth, second_of_day: int) -> bool:
    """Whether the window holds then: it begins with its first second and ends before its last. Over midnight when it ends before it begins, the
    whole day when both are one."""
    start, end = seconds_of(limit.window_start), seconds_of(limit.window_end)
    if start == end:
        return True
    if start < end:
        return start <= second_of_day < end
    return second_of_day >= start or second_of_day < end


def limit_of(state: State, client_id: int, direction: Direction, now_ns: int) -> int:
    """Bytes per second that the client may send (``backup``) or receive (``restore``) now; 0: as many as go."""
    ids = state.indexes.limits_of_client.get(client_id)
    if not ids:
        return 0
    second = now_ns // 10**9 % DAY_SECONDS
    found: list[float] = []
    for limit_id in ids:
        limit = state.find(ClientBandwidth, limit_id)
        assert limit is not None, "the index follows the table"
        if is_open(limit, second):
            kib = limit.backup_bandwidth if direction == "backup" else limit.restore_bandwidth
            found.append(kib * KIB or math.inf)
    if not found:
        return 0
    chosen = min(found) if configured(state, "bandwith_client_limit") == "minimum" else max(found)
    return 0 if math.isinf(chosen) else int(chosen)
