"""Tests of the domain: pure, so they need no loop, no clock and no files."""
