"""Kernels of a GPU, in Triton; `plain` holds the torch twin of each."""
