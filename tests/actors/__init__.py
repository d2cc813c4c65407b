"""Tests of the runtime: mailboxes, supervision, bus, journal, sessions, agents, over memory and over real sockets."""
