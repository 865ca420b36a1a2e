"""C++ kernels for the CPU, behind a plain C interface."""
