"""Measurements: each script writes one JSON into `results/`."""
