"""What every test runs under."""

import torch

# Tests' tensors are tiny: a second thread gains nothing, and where another process holds its core it waits for long.
torch.set_num_threads(1)
