"""The world of a simulation: everything that is not deterministic, drawn from one seed."""
