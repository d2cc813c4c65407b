"""What stands on tape cartridges: bytes in, bytes out, no I/O. The native format is ``docs/format-tape.md``, LTFS is ISO/IEC 20919.

``native`` are the records, ``native_write`` a session that writes them, ``native_scan`` what reading them tells, ``spanning`` how parts on
several cartridges make archives. ``ltfs`` and its neighbours read and write LTFS volumes. Nothing here knows SCSI, drives or changers.
"""
