"""Setup of every test: one thread and a fixed seed."""

import pytest
import torch

torch.set_num_threads(1)
# Start the autograd engine before the first call of a compiled module: started after it, the engine has threads, and
# tests that fork ranks fail in the same process.
torch.ones((), requires_grad=True).backward()


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
