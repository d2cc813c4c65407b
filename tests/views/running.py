"""A projector in a nursery, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from drivers.simulated.world import InlineThreads
from eventlog.views import Projector, ViewSchema
from rbcore.ports import Threads
from tests.views.histories import ListedLog


@asynccontextmanager
async def projected(
    log: ListedLog, path: Path, schema: ViewSchema, threads: Threads | None = None
) -> AsyncIterator[Projector]:
    projector = Projector(log.as_log(), path, schema, threads or InlineThreads())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(projector.run)
        yield projector
        nursery.cancel_scope.cancel()
