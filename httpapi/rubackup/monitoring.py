"""rubackup_server_system_monitoring: samples of the host out of a bounded ring (reference 2.22)."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from eventlog.views.moments import render
from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.listing import PARAMETERS, payload_of_rows
from httpapi.method import Schema
from httpapi.rubackup.catalogue import action
from rbcore.errors import NotFound
from rbcore.monitoring import MonitoringSample
from rbcore.resource import UNLIMITED_ROLES

NOUN = "server monitoring journal record"

_UNITS = {
    "cpu_percent": ("number", "Of all processors: 0 to 100."),
    "memory_total": ("integer", "Bytes."),
    "memory_used": ("integer", "Bytes that are neither free nor can be freed at once."),
    "swap_total": ("integer", "Bytes."),
    "swap_used": ("integer", "Bytes."),
    "load_1": ("number", "Load average of one minute."),
    "load_5": ("number", "Of five minutes."),
    "load_15": ("number", "Of fifteen minutes."),
    "network_in": ("integer", "Bytes per second, all interfaces but the loopback."),
    "network_out": ("integer", "Bytes per second."),
    "disk_in": ("integer", "Bytes per second written to disks."),
    "disk_out": ("integer", "Bytes per second read from disks."),
    "disk_in_operations": ("integer", "Writes per second."),
    "disk_out_operations": ("integer", "Reads per second."),
    "tasks": ("integer", "Tasks that have not ended."),
}
_ROW: Schema = {
    "type": "object",
    "properties": {
        "id": schema.ID,
        "time": {"type": "string", "description": schema.TIME_TEXT},
        "server": {"type": "string"},
        **{name: {"type": kind, "minimum": 0, "description": text} for name, (kind, text) in _UNITS.items()},
    },
    "required": ["id", "time", "server", *_UNITS],
}


def _row(sample: MonitoringSample) -> dict[str, Any]:
    values = {name: getattr(sample, name) for name in _UNITS}
    return {"id": sample.id, "time": render(sample.time_ns // 1000, UTC), "server": sample.server, **values}


@action(
    "GET", "/rubackup_server_system_monitoring", roles=UNLIMITED_ROLES, query=PARAMETERS[:-1], data=schema.listing(_ROW)
)
async def list_all(call: Call) -> Answer:
    return Answer(payload_of_rows([_row(one) for one in call.services.monitoring.samples()], call.query))


@action("GET", "/rubackup_server_system_monitoring/{id}", roles=UNLIMITED_ROLES, data=_ROW)
async def show(call: Call) -> Answer:
    """A sample that has left the ring is not there any more."""
    sample_id = call.id(NOUN)
    for sample in call.services.monitoring.samples():
        if sample.id == sample_id:
            return Answer(_row(sample))
    raise NotFound(f"{NOUN} not found", errors={"id": [f"There is no {NOUN} with id {sample_id}."]})


METHODS = (list_all, show)
