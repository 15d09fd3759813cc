"""What blocks do, by hand, by slow loops and by properties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ianet.blocks.ia import ChannelIA, IABlock, SpatialIA
from ianet.diagnostics import BlockDescription, describe_blocks, row_entropy
from ianet.images import normalize
from ianet.network import Network
from ianet.options import NetworkOptions

EPSILON = 1e-5  # of BatchNorm: a fresh one divides by the root of 1 + EPSILON
SIGMA = {"stage2": {"sigma": (10, 20)}, "stage3": {"sigma": (5, 10)}}


def network(**options: Any) -> Network:
    """A network whose blocks are not the identity, as after training."""
    torch.manual_seed(0)
    result = Network(3, NetworkOptions(**{"backbone": "resnet18", "after": SIGMA, **options}))
    for module in result.blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1)
    return result.eval()


def network_of(block: nn.Module) -> Network:
    """A network that is a single block on the normalised pixels."""
    result = network(after={})
    result.stem = nn.Sequential()
    result.stages = nn.ModuleDict({"stage1": nn.ModuleList([nn.Identity()])})
    result.blocks = nn.ModuleDict({"stage1": nn.ModuleDict({"0": block})})
    return result


def noise(number: int, height: int = 64, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (number, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def test_a_uniform_sia_of_a_known_scale_on_images_of_one_colour() -> None:
    """The mean over the positions is the input, so the residual is scale times the input."""
    block = IABlock(3, arrangement="sia", relation="uniform")
    nn.init.constant_(block.sia.norm.weight, -0.5)
    images = torch.tensor([10, 200, 90], dtype=torch.uint8).expand(2, 4, 3, 3)
    (sia,) = describe_blocks(network_of(block), images)
    assert sia.name == "blocks.stage1.0.sia"
    assert sia.residual_ratio == pytest.approx(0.5 / math.sqrt(1 + EPSILON))
    assert sia.scale == 0.5
    assert sia.entropy == pytest.approx(1)


def test_a_cia_without_its_products_by_hand() -> None:
    """A scale of 0 makes C uniform, so that each channel receives the mean of the channels."""
    block = IABlock(3, arrangement="cia", channel_scale=0.0)
    block.cia.norm.weight.data = torch.tensor([1.0, 2.0, -3.0])
    images = torch.tensor([10, 200, 90], dtype=torch.uint8).expand(1, 4, 3, 3)
    colour = normalize(images)[0, :, 0, 0].double()
    (cia,) = describe_blocks(network_of(block), images)
    residual = colour.mean() * torch.tensor([1, 2, -3]) / math.sqrt(1 + EPSILON)
    assert cia.name == "blocks.stage1.0.cia"
    assert cia.residual_ratio == pytest.approx(rms(residual) / rms(colour))
    assert cia.scale == pytest.approx(2)
    assert cia.entropy == pytest.approx(1)


def test_a_block_without_batch_norm_and_relation() -> None:
    class Half(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features / 2

    (half,) = describe_blocks(network_of(Half()), noise(2))
    assert half == BlockDescription("blocks.stage1.0", pytest.approx(0.5), None, None)


def test_fresh_blocks_are_the_identity() -> None:
    for block in ("ia", "non_local", "graph_convolution"):
        fresh = Network(3, NetworkOptions("resnet18", block=block, after={"stage2": {}}))
        for description in describe_blocks(fresh, noise(1)):
            assert description.residual_ratio == description.scale == 0


def test_a_network_without_blocks() -> None:
    assert describe_blocks(network(after={}), noise(1)) == []


def test_no_images() -> None:
    with pytest.raises(ValueError, match="there are no images to describe the blocks in: give at"):
        describe_blocks(network(), noise(0))


@pytest.mark.parametrize("arrangement", ["sia", "cia", "sia-cia", "cia-sia", "parallel"])
def test_residuals_are_what_the_modules_add(arrangement: str) -> None:
    """SIA and CIA in the order in which they run, in a float64 forward pass of all images."""
    model = network(options={"arrangement": arrangement}, position="block")
    images = noise(3)
    descriptions = {block.name: block for block in describe_blocks(model, images)}
    maps = dict(model.double().intermediates(normalize(images).double()))
    names = []
    for stage in ("stage2", "stage3"):
        for place in ("0", "1"):
            features = maps[f"stages.{stage}.{place}"]
            block = model.get_submodule(f"blocks.{stage}.{place}")
            order = arrangement.split("-") if arrangement != "parallel" else ["sia", "cia"]
            for name in order:
                module = block.get_submodule(name)
                names.append(f"blocks.{stage}.{place}.{name}")
                residual = module(features) - features
                description = descriptions[names[-1]]
                assert description.residual_ratio == pytest.approx(
                    rms(residual) / rms(features), 1e-4
                )
                assert description.scale == pytest.approx(module.norm.weight.abs().mean().item())
                if arrangement != "parallel":
                    features = features + residual
    assert list(descriptions) == names


def slow_entropy(rows: Tensor) -> float:
    """-sum p log p of each row, one number at a time, as a fraction of log M."""
    entropies = [
        -sum(p * math.log(p) for p in row if p > 0) / math.log(len(row)) for row in rows.tolist()
    ]
    return float(np.mean(entropies))


def test_entropies_by_slow_loops() -> None:
    options = {"relation": "appearance", "scale": 0.05, "channel_scale": 0.05, "contexts": (1,)}
    model = network(options=options, after={"stage3": {}})
    images = noise(2)
    sia, cia = describe_blocks(model, images)
    features = dict(model.double().intermediates(normalize(images).double()))["stages.stage3.1"]
    block = model.get_submodule("blocks.stage3.1")
    expected = [
        slow_entropy(rows.flatten(0, -2))
        for rows in (block.sia.relation(features), block.cia.relation(block.sia(features)))
    ]
    assert [sia.entropy, cia.entropy] == pytest.approx(expected, abs=1e-5)
    assert all(0.05 < entropy < 0.95 for entropy in expected)


def test_weights_below_float32_keep_their_entropy() -> None:
    """Dot products 200 apart: in float32 a renormalised product of three rows vanishes."""
    block = IABlock(3, arrangement="sia", relation="appearance", normalization="renormalized")
    images = noise(1, 4, 4)
    features = normalize(images)
    block.sia.scale = 200 / features.square().sum().item()
    (sia,) = describe_blocks(network_of(block), images)
    assert sia.entropy == pytest.approx(slow_entropy(block.sia.relation(features.double())[0]))


def test_a_row_entropy_by_hand() -> None:
    relation = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    assert row_entropy(relation) == pytest.approx((0.5 + 0) / 2)
    assert row_entropy(torch.full((2, 3, 5, 5), 0.2)) == pytest.approx(1)
    assert row_entropy(torch.ones(2, 1, 1)) == 1  # a map of one position


def test_images_are_taken_one_by_one() -> None:
    model = network()
    batches: list[int] = []
    model.stem.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    images = noise(3)
    together = describe_blocks(model, images)
    assert batches == [1, 1, 1]
    apart = [describe_blocks(model, image[None]) for image in images]
    for block, *single in zip(together, *apart, strict=True):
        assert block.entropy == pytest.approx(np.mean([each.entropy for each in single]))
        assert min(each.residual_ratio for each in single) < block.residual_ratio
        assert block.residual_ratio < max(each.residual_ratio for each in single)


def test_a_network_in_training_mode_is_described_in_evaluation_mode() -> None:
    model = network()
    expected = describe_blocks(model, noise(2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert describe_blocks(model.train(), noise(2)) == expected
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_stages_after_the_last_block_are_not_run() -> None:
    model = network(after={"stage3": {}, "stage2": {}})
    model.stages["stage4"][0].register_forward_pre_hook(lambda module, inputs: pytest.fail("run"))
    names = [block.name for block in describe_blocks(model, noise(1))]
    assert names == [f"blocks.{stage}.1.{part}" for stage in SIGMA for part in ("sia", "cia")]


def test_modules_are_found_by_name() -> None:
    model = network()
    for block in describe_blocks(model, noise(1)):
        assert isinstance(model.get_submodule(block.name), SpatialIA | ChannelIA)
