"""Simulated histories: the real actors, virtual time, drawn faults."""
