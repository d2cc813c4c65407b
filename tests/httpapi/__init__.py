"""Tests of the REST edge on a whole house in memory (``house``)."""
