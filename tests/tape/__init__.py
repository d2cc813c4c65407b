"""Tape libraries: sense, transports, changer and drive commands, against every library that is there."""
