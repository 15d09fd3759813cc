"""Denormals are zeros in `fit`, in `extract` and in what is saved, in every thread of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ianet.features import extract, extract_batches
from ianet.images import normalize
from ianet.network import Network, save
from ianet.numerics import flush_denormals, zero_denormals
from ianet.options import NetworkOptions
from ianet.training.fit import fit
from ianet.training.recipe import Recipe

CPU = torch.device("cpu")
THREADS = 4
DENORMAL = 2.0**-140


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Threads that torch has started before, with the CPU's mode at the start of a process."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    products()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(before)


def products() -> list[float]:
    """2**20 times a denormal, in each thread: 0 where denormals are flushed."""
    # By its bits, as a thread that flushes writes a zero.
    numbers = torch.full((THREADS * 2**15,), 2**9, dtype=torch.int32).view(torch.float32)
    return [float(share.amax()) for share in (numbers * 2.0**20).view(THREADS, -1)]


PLAIN, FLUSHED = [2.0**-120] * THREADS, [0.0] * THREADS


def test_torchs_own_function_reaches_the_calling_thread_alone() -> None:
    """Why `flush_denormals` does more. If this fails, torch does it all and that may go."""
    torch.set_flush_denormal(True)
    assert products() == [0.0, *PLAIN[1:]]


def test_flush_reaches_every_thread_and_ends() -> None:
    assert products() == PLAIN
    with flush_denormals():
        assert products() == FLUSHED
        with flush_denormals():
            assert products() == FLUSHED
        assert products() == FLUSHED
    assert products() == PLAIN
    with pytest.raises(KeyError), flush_denormals():
        raise KeyError
    assert products() == PLAIN


def test_between_two_batches_the_caller_computes_as_before() -> None:
    class Product(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(products())
            return images.flatten(1)

    seen: list[list[float]] = []
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    batches = extract_batches(Product(), iter([images, images]), device=CPU)
    for _ in batches:
        assert products() == PLAIN
    assert seen == [FLUSHED, FLUSHED]


def test_a_flush_of_the_caller_stays() -> None:
    torch.set_flush_denormal(True)
    with flush_denormals():
        assert products() == FLUSHED
    assert products() == FLUSHED


def test_zero_denormals_are_what_a_flush_gives() -> None:
    tiny = torch.finfo(torch.float32).tiny
    numbers = torch.tensor([0.0, -0.0, tiny, -tiny, tiny / 2, -tiny / 2, 1.0, torch.inf, torch.nan])
    state = {
        "float32": numbers,
        "bfloat16": numbers.bfloat16(),
        "float64": numbers.double(),
        "int64": torch.tensor([0, 1, -1]),
        "bool": torch.tensor([True, False]),
    }
    zeros = zero_denormals(state)
    expected = torch.tensor([0.0, -0.0, tiny, -tiny, 0.0, -0.0, 1.0, torch.inf, torch.nan])
    torch.testing.assert_close(zeros["float32"], expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(zeros["float32"].signbit()[:8], expected.signbit()[:8])
    torch.testing.assert_close(
        zeros["bfloat16"], expected.bfloat16(), rtol=0, atol=0, equal_nan=True
    )
    # These numbers are normal in float64.
    for name in ("float64", "int64", "bool"):
        torch.testing.assert_close(zeros[name], state[name], rtol=0, atol=0, equal_nan=True)
        assert zeros[name].dtype == state[name].dtype


class Faint(nn.Module):
    """Denormal weights for every thread, and a bias with gradients whose squares are denormal.

    Attributes:
        products: the largest of the weights times 2**20, in each forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((THREADS * 2**15,), DENORMAL))
        self.bias = nn.Parameter(torch.zeros(3))
        self.products: list[float] = []

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        product = (self.weight * 2.0**20).amax()
        self.products.append(float(product.detach()))
        features = images.mean((2, 3)) + self.bias * 2.0**-60 + product
        return (features, features) if self.training else features * 2.0**120


def pixels() -> Tensor:
    return torch.full((6, 4, 2, 3), 128, dtype=torch.uint8)


def test_extract_takes_denormal_weights_for_zeros() -> None:
    network = Faint()
    features = extract(network, pixels(), device=CPU, batch=4)
    zeros = Faint()
    nn.init.zeros_(zeros.weight)
    assert network.products == [0.0, 0.0]
    assert torch.equal(features, extract(zeros, pixels(), device=CPU, batch=4))
    assert products() == PLAIN
    network(normalize(pixels()))
    assert network.products[-1] == 2.0**-120


def test_fit_takes_denormal_weights_for_zeros_and_leaves_none_in_its_state() -> None:
    network = Faint()
    recipe = Recipe(height=4, width=2, epochs=2, batch=3, lr=1e-3, weight_decay=0)
    for report in fit(network, pixels(), torch.arange(6) % 3, recipe, seed=0, device=CPU):
        assert products() == PLAIN  # between the epochs
        assert not is_denormal(network.weight).any()
        moments = report.state["optimizer"]["state"][1]
        assert 0 < moments["exp_avg"].abs().max() < 2.0**-60
        assert not moments["exp_avg_sq"].any()
    assert network.products[0] == 0.0
    assert len(network.products) == 4


def is_denormal(values: Tensor) -> Tensor:
    """By the bits, as a CPU that flushes denormals takes them for zeros."""
    bits = values.detach().view(torch.int32) & 0x7FFFFFFF
    return (bits > 0) & (bits < 0x00800000)


def test_a_network_that_is_saved_has_no_denormal_weight(tmp_path: Path) -> None:
    network = Network(3, NetworkOptions("resnet18"))
    with torch.no_grad():
        network.classifier.weight[0] = DENORMAL
        network.classifier.weight[1] = -DENORMAL
        network.stem[0].weight[0] = DENORMAL
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save(network, tmp_path, dataset="synthetic", height=64, width=32)
    after = load_file(tmp_path / "weights.safetensors")
    assert set(after) == set(before)
    assert sum(int(is_denormal(value).sum()) for value in before.values() if value.ndim) > 1000
    for name, value in before.items():
        if value.is_floating_point():
            assert not is_denormal(after[name]).any()
            assert torch.equal(after[name], value.where(~is_denormal(value), 0.0))
        else:
            assert torch.equal(after[name], value)
