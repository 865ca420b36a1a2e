"""The test suite."""

import os

import torch

if not torch.cuda.is_available():
    # Before Triton is first imported, which looks at it once.
    os.environ.setdefault("TRITON_INTERPRET", "1")
