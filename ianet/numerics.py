"""What processors compute slowly or wrongly.

Denormals are numbers below the least normal float. A CPU multiplies them many times slower. A CPU
computes narrow images wrongly in bfloat16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

GRAIN = 32_768  # numbers that torch gives to a thread at least
SOFT = 1  # omp_pause_soft of OpenMP 5
NARROW = 16
"""Most pixels of the width of images for which a CPU computes in float32.

The last strided convolution of a network then gives a single column. oneDNN computes such a
convolution, or its gradient, in bfloat16 from memory that nothing has written (pytorch#169688).
"""


def is_narrow(device: torch.device, width: int) -> bool:
    """Return whether a device computes images of a width wrongly in bfloat16."""
    return device.type == "cpu" and width <= NARROW


def zero_denormals(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose denormals are zeros of the same sign, as a flush gives them."""
    return {
        name: value * (value.abs() >= torch.finfo(value.dtype).tiny)
        if value.is_floating_point()
        else value
        for name, value in state.items()
    }


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Let this thread, and those among which torch shares its work, take denormals for zeros.

    The mode before is restored at the end.

    `torch.set_flush_denormal` sets the mode of the calling thread alone. A thread of OpenMP has the
    mode that the calling thread had at its start. So the threads of OpenMP are ended, and OpenMP
    starts new ones when torch needs them.
    """
    if not _multiply_denormals(torch.get_num_threads()):
        yield
        return
    before = not _multiply_denormals(1)
    _set_mode(flush=True)
    try:
        yield
    finally:
        _set_mode(flush=before)


def _multiply_denormals(threads: int) -> bool:
    """Return whether any of so many threads multiplies denormals, which torch does not tell."""
    least = torch.full((threads * GRAIN,), torch.finfo(torch.float32).tiny, device="cpu")
    return bool((least / 2 * 2).any())


def _set_mode(*, flush: bool) -> None:
    torch.set_flush_denormal(flush)
    if torch.backends.openmp.is_available():
        # By way of torch's library, as a process may hold several OpenMPs.
        ctypes.CDLL("libtorch_cpu.so").omp_pause_resource_all(SOFT)
