"""Views: what the log says, as tables that can be asked for now and for any moment before.

Belongs here: the tables that follow from the declarations of resources, the projector that keeps them at the log's head,
the reader that answers lists and records, the grammar of filters, making views anew. Does not belong here: facts (they are
events), decisions, wire formats beyond the values of fields.
"""

from __future__ import annotations

from eventlog.views.journals import TASK_JOURNAL
from eventlog.views.operations import OPERATIONS
from eventlog.views.port import Condition, Page, Query, ViewReader
from eventlog.views.projector import Projector
from eventlog.views.reader import SqliteViewReader
from eventlog.views.rebuild import rebuild, views_digest
from eventlog.views.schema import LogTable, ViewSchema

LOGS: tuple[LogTable, ...] = (TASK_JOURNAL, *OPERATIONS)
"""Every append-only table of the product."""

__all__ = [
    "LOGS",
    "OPERATIONS",
    "TASK_JOURNAL",
    "Condition",
    "LogTable",
    "Page",
    "Projector",
    "Query",
    "SqliteViewReader",
    "ViewReader",
    "ViewSchema",
    "rebuild",
    "views_digest",
]
