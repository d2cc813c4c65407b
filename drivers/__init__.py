"""The outside world behind ports: clock, randomness, threads, volumes, archive stores, file trees, TLS.

Real things here, their simulated twins in ``drivers.simulated``. No decisions: what is to be done is decided above.
"""
