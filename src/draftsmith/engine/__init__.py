"""Rounds, sequences, batches and results."""
