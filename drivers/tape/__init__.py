"""Cartridges in drives: what lies on one, labelling, writing and reading it in its format. Implements ``rbcore.tape.session``.

Bytes of formats live in ``rbcore.tape``, SCSI commands in ``drivers.scsi``; which cartridge is used for what is decided above.
"""
