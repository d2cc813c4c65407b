"""The trio runtime: mailboxes, supervision, the bus and its links, the journal, and one module per actor of the daemon.

Belongs here: conversations, waiting, carrying out what ``rbcore`` decided. Does not belong here: decisions, HTTP, devices.
Rooms above start all of it with ``actors.daemon.daemon_actors``; its interfaces are in ``actors.port``.
"""
