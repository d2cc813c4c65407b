"""The archive format: bytes in, bytes out, no I/O. The byte tables are in ``docs/format.md``; that document leads.

An archive is one backup: a sequence of blocks with ascending numbers. Payload blocks hold file content (many small files
packed into one, big files cut into many), manifest blocks hold the entries, the trailer block is last. The server needs no
key to check an archive: every block header carries the digest of the stored bytes, and the root is computed over headers.
"""
