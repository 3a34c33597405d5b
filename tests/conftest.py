"""Shared by all tests."""

import torch

# pytest-xdist runs one process per core; a second thread in each would only fight for it.
torch.set_num_threads(1)
