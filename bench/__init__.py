"""Benchmarks: each module is one command that prints ratios against a peer or a limit measured in the same run."""
