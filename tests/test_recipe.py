"""Which recipes are refused, and the precision that a device has."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small import CPU, STRONG, data, recipe, small

from ianet.training.fit import fit
from ianet.training.step import is_mixed


@pytest.mark.parametrize("added", [{}, STRONG], ids=["paper", "strong"])
def test_mixed_precision_learns_as_float32_does(added: dict[str, Any]) -> None:
    images, labels = data(width=24)
    losses = {}
    for precision, bits in (("float32", 32), ("bfloat16", 16)):
        network = copy.deepcopy(small())
        options = recipe(width=24, precision=precision, **added)
        losses[precision] = list(fit(network, images, labels, options, seed=0, device=CPU))[-1]
        assert losses[precision].bits == bits
        assert next(network.parameters()).dtype == torch.float32
    assert losses["bfloat16"].loss == pytest.approx(losses["float32"].loss, rel=0.02)
    assert losses["bfloat16"].loss != losses["float32"].loss


@pytest.mark.parametrize(
    ("able", "width", "bits"),
    [
        ({"avx512_bf16": True}, 17, 16),
        ({"amx_bf16": True}, 17, 16),
        ({"avx2": True}, 17, 32),
        ({"avx512_bf16": True}, 16, 32),  # oneDNN would read memory that nothing has written
    ],
)
def test_precision_by_what_the_device_can(
    able: dict[str, bool], width: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    options = recipe(width=width, precision="auto")
    epochs = fit(small(), *data(width=width), options, seed=0, device=CPU)
    assert next(epochs).bits == bits


def test_bfloat16_of_narrow_images_on_a_cpu_is_refused() -> None:
    options = recipe(width=16, precision="bfloat16")
    message = "precision is 'bfloat16', in which a CPU cannot train on images 16 pixels wide: set"
    with pytest.raises(ValueError, match=message):
        list(fit(small(), *data(width=16), options, seed=0, device=CPU))
    assert is_mixed(options, torch.device("cuda"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: it must be above 0"),
        ({"block_lr": 0}, "block_lr is 0: it must be above 0"),
        ({"weight_decay": -1.0}, r"weight_decay is -1\.0: it must not be below 0"),
        ({"milestones": (0, 20)}, r"milestones are \[0, 20\]: they must ascend, from 1 on"),
        ({"flip": 1.5}, "flip is 1.5: it must lie in 0 to 1"),
        ({"milestones": (40, 20)}, r"milestones are \[40, 20\]: they must ascend"),
        ({"warm_up": 4}, "warm_up is 4: it must lie in 0 to 3 epochs"),
        ({"padding": -1}, "padding is -1: it must not be below 0"),
        ({"erasing": 2.0}, r"erasing is 2\.0: it must lie in 0 to 1"),
        ({"triplet_margin": -0.3}, r"triplet_margin is -0\.3: it must not be below 0"),
        ({"images_per_identity": 4}, "batch is 6: it must be a multiple of images_per_identity, 4"),
        ({"height": 10**6}, "height is 1000000: it must not be above 8192"),
        ({"batch": 10**12}, "batch is 1000000000000: it must not be above 1000000"),
        (
            {"batch": 10**5, "height": 8000, "width": 800},
            "batch is 100000: with images of 8000 x 800 pixels the inputs of a step take 7,153 GB",
        ),
        ({"schedule": "cosin"}, "schedule is 'cosin': choose one of step, cosine"),
        ({"precision": "bf16"}, "precision is 'bf16': choose one of float32, bfloat16, auto"),
        ({"batch_norm": "synchronized"}, "is 'synchronized': choose one of worker, synchronised"),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_batches_too_small_for_batch_norm() -> None:
    with pytest.raises(ValueError, match="batches of 1 images cannot be shared among 1 workers"):
        list(fit(small(), *data(), recipe(batch=1), seed=0, device=CPU))
