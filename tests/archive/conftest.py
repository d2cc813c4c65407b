"""Hypothesis without a deadline: examples that reach the disk take as long as the disk takes."""

from hypothesis import settings

settings.register_profile("disk", deadline=None)
settings.load_profile("disk")
