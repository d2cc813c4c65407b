"""Tests of the agent's data work: trees, pipelines, and what they do when the world does not hold still."""
