"""The cost of a network: parameters and multiply-adds."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Return the multiply-adds of a forward pass of one image of height x width pixels.

    Convolutions, linear layers and matrix products count, as in the paper ("Multiply GFLOPs",
    Section 4.3). Sums along diagonals, softmax and BatchNorm multiply no matrices and do not count.
    """
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, height, width, dtype=parameter.dtype, device=parameter.device)
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    network.train(training)
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in network.parameters())
