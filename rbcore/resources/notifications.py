"""``notifications`` (reference 1.6, 2.21): read only."""

from __future__ import annotations

from rbcore.entities import Client, Notification, UserGroup
from rbcore.resource import Choice, Integer, Reference, Resource, Text, Timestamp
from rbcore.resources.common import BY_CLIENT
from rbcore.vocabulary import NOTIFICATION_STATUSES

NOTIFICATIONS = Resource(
    name="notifications",
    kind=Notification.KIND,
    title="Notifications",
    noun="notification",
    entity=Notification,
    fields=(
        Text(
            name="event", description="The field of the rule or strategy that asks for it, such as `notify_exception`."
        ),
        Text(name="object", description="The rule or strategy."),
        Reference(name="user_group", to=UserGroup.KIND, by="groupname", description="Who is told."),
        Text(name="cc", description="Further addresses."),
        Timestamp(name="created", attribute="created_ns", event_time=True),
        Timestamp(name="sent", attribute="sent_ns"),
        Choice(
            name="status",
            values=NOTIFICATION_STATUSES,
            description="`No recipients`: nobody in the group has an address, and no further one is given.",
            indexed=True,
        ),
        Text(name="text"),
        Reference(name="client", attribute="client_id", to=Client.KIND, by="client"),
        Integer(name="task_id", description="0: it is about no task."),
    ),
    scope=BY_CLIENT,
)
