"""SCSI: transports (iSCSI, Linux SG_IO), sense decoding, and the command sets of changers (SMC) and tape drives (SSC).

Bytes and commands live here; which cartridge goes where, and what to do after an error, is decided above.
"""
