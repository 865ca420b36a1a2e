"""Beam search over the same caches, with a draft model in fewer passes."""
