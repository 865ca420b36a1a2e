"""Kernels of a GPU, in Triton; `plain` holds the torch twin of each.

Kernels are marked `no_type_check`: jaxtyping's import hook, under which the tests run, would hide a
kernel's own globals from Triton's interpreter (findings/jaxtyping_hides_triton_helpers.sh).
"""
