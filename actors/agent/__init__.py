"""The program on a protected host: its identity, its session with the daemon, and the data work of backups and restores.

Belongs here: what needs the host's files, the client's keys, or the session with the daemon (``program.run_agent``).
Does not belong here: the archive format (``rbcore.archive``) and how a host's trees are read and written (``drivers``).
"""
