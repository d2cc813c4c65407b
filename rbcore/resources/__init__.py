"""The declared resources of the API: data only. What they mean to validation, views, routes and OpenAPI stands in
``rbcore.resource``; one module here per group of the manual.

Belongs here: fields, defaults, constraints, references, rules and refusals of one resource. Does not belong here: what a
command does beyond making, changing and ending a record (``rbcore.decide``).
"""

from __future__ import annotations

from rbcore.resource import Resource, table_of
from rbcore.resources.access import (
    ADMINISTRATORS,
    CLIENT_GROUPS,
    MAINTAINERS,
    STRATEGY_ADMINISTRATORS,
    SUPERVISORS,
    USER_GROUPS,
    USERS,
)
from rbcore.resources.bandwidth import CLIENT_BANDWIDTH
from rbcore.resources.clients import CLIENTS, UNAUTHORISED_CLIENTS
from rbcore.resources.devices import CLIENT_DEFINED_STORAGES, STORAGE_BLOCK_DEVICES
from rbcore.resources.notifications import NOTIFICATIONS
from rbcore.resources.pool_choice import DYNAMIC_POOL_GROUPS, DYNAMIC_POOL_GROUPS_RECORDS, POOL_SUBSTITUTION
from rbcore.resources.pools import POOL_LIST, STORAGE_LOCAL_CATALOGS
from rbcore.resources.recovery import DISASTER_RECOVERY_PLAN
from rbcore.resources.reports import REPORTS
from rbcore.resources.repository import REPOSITORY
from rbcore.resources.requests import DELETE_RULE_REQUESTS, NEW_RULE_REQUESTS
from rbcore.resources.schedule import GLOBAL_SCHEDULE, STRATEGY_RULES
from rbcore.resources.servers import MEDIA_SERVERS, UNAUTHORISED_MEDIA_SERVERS
from rbcore.resources.settings import GLOBAL_CONFIGURATION_RECORD
from rbcore.resources.strategies import BACKUP_STRATEGIES
from rbcore.resources.tape import TAPE
from rbcore.resources.tasks import TASK_QUEUE

RESOURCES: tuple[Resource, ...] = (
    UNAUTHORISED_CLIENTS,
    CLIENTS,
    CLIENT_GROUPS,
    UNAUTHORISED_MEDIA_SERVERS,
    MEDIA_SERVERS,
    POOL_LIST,
    STORAGE_LOCAL_CATALOGS,
    STORAGE_BLOCK_DEVICES,
    CLIENT_DEFINED_STORAGES,
    POOL_SUBSTITUTION,
    DYNAMIC_POOL_GROUPS,
    DYNAMIC_POOL_GROUPS_RECORDS,
    TASK_QUEUE,
    REPOSITORY,
    *TAPE,
    USERS,
    USER_GROUPS,
    SUPERVISORS,
    MAINTAINERS,
    ADMINISTRATORS,
    STRATEGY_ADMINISTRATORS,
    GLOBAL_CONFIGURATION_RECORD,
    NOTIFICATIONS,
    BACKUP_STRATEGIES,
    STRATEGY_RULES,
    GLOBAL_SCHEDULE,
    NEW_RULE_REQUESTS,
    DELETE_RULE_REQUESTS,
    DISASTER_RECOVERY_PLAN,
    REPORTS,
    CLIENT_BANDWIDTH,
)

by_name: dict[str, Resource] = {one.name: one for one in RESOURCES}
by_kind: dict[str, Resource] = table_of(RESOURCES)

__all__ = ["RESOURCES", "by_kind", "by_name"]
