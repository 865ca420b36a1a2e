"""Where the kernels run in the tests."""

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
