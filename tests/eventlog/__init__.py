"""What the event log must hold: on LMDB, in memory, damaged, full, crashed, copied, and by an auditor."""
