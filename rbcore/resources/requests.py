"""``new_rule_requests`` and ``delete_rule_requests`` (reference 2.16): clients ask, an administrator answers (``rbcore.decide.requests``)."""

from __future__ import annotations

from rbcore.entities import Client, DeleteRuleRequest, DynamicPoolGroup, NewRuleRequest, Pool
from rbcore.resource import Choice, Integer, Reference, Resource, Text, Timestamp
from rbcore.resources import timetable as shared
from rbcore.resources.common import BY_CLIENT
from rbcore.vocabulary import BACKUP_TYPES, CRYPTO

_COMMENT = Text(name="comment", default="", max_length=1000, description="What the client's user says about it.")

NEW_RULE_REQUESTS = Resource(
    name="new_rule_requests",
    kind=NewRuleRequest.KIND,
    title="New Rule Requests",
    noun="request",
    entity=NewRuleRequest,
    fields=(
        Reference(name="client", attribute="client_id", to=Client.KIND, by="client"),
        Text(name="name", required=True, max_length=255, pattern=r".*\S.*"),
        *shared.resource_fields(),
        Choice(name="backup_type", required=True, values=BACKUP_TYPES),
        Reference(
            name="pool",
            attribute="pool_id",
            to=Pool.KIND,
            by="pool_name",
            or_to=DynamicPoolGroup.KIND,
            or_by="name",
            nullable=True,
            default=0,
            description="The client's local-schedule pool when it named none.",
        ),
        Choice(name="crypto", values=CRYPTO, default="nocrypt"),
        shared.periodic_field(),
        *shared.moment_fields(),
        shared.storage_field(),
        _COMMENT,
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    manage=shared.ADMINISTRATORS_OF_RULES,
    searchable_name="name",
    scope=BY_CLIENT,
)

DELETE_RULE_REQUESTS = Resource(
    name="delete_rule_requests",
    kind=DeleteRuleRequest.KIND,
    title="Delete Rule Request",
    noun="request",
    entity=DeleteRuleRequest,
    fields=(
        Reference(name="client", attribute="client_id", to=Client.KIND, by="client"),
        Integer(name="rule_id", minimum=1, indexed=True, description="The rule that is to go."),
        Text(name="rule_name", description="Its name when the client asked."),
        *shared.resource_fields(),
        Choice(name="backup_type", values=BACKUP_TYPES),
        _COMMENT,
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    manage=shared.ADMINISTRATORS_OF_RULES,
    searchable_name="rule_name",
    scope=BY_CLIENT,
)
