"""Tape libraries: one actor per changer, one per drive, and a planner per library that tells them what to do.

The changer's actor serialises moves, the drives' actors work side by side. What is done next is a pure function (``rbcore.tape_dispatch``); what is
about to be done and how it ended are events. Data goes through ``sink`` and ``source``, which share the drives' open sessions (``desk``).
Does not belong here: SCSI bytes (``drivers.scsi``), formats (``drivers.tape``), decisions (``rbcore``).
"""
