"""Every block of ianet/blocks in a sweep, and by value, against slow loops.

`test_relations.py` has what the IA block alone computes.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ianet import blocks
from ianet.blocks.cbam import ConvolutionalBlockAttention
from ianet.blocks.graph_convolution import GraphConvolution, grid_adjacency
from ianet.blocks.ia import ChannelIA, IABlock, SpatialIA
from ianet.blocks.non_local import SIMILARITIES, NonLocal
from ianet.blocks.sca_cnn import ORDERS, SpatialChannelAttention
from ianet.blocks.squeeze_excitation import SqueezeExcitation
from ianet.cost import count_multiply_adds, count_parameters
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.relations import appearance_relation

FILES = [module.name for module in pkgutil.iter_modules(blocks.__path__)]
CHANNELS = 32

Image = NDArray[np.float64]
"""The features of one image, (C, H, W)."""


def block_of(file: str) -> nn.Module:
    torch.manual_seed(0)
    return importlib.import_module(f"ianet.blocks.{file}").Block(CHANNELS)


def awake(block: nn.Module) -> nn.Module:
    """The block in float64, evaluation mode, with no weight or running statistic left trivial."""
    block = block.double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, generator=generator)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return block


# The sweep: a later block is in it by its file alone.


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (16, 8)])
def test_shape_dtype_and_independence_of_the_batch(
    file: str, dtype: torch.dtype, size: tuple[int, int]
) -> None:
    block = awake(block_of(file)).to(dtype)
    features = torch.randn(3, CHANNELS, *size, dtype=dtype)
    copy = features.clone()
    computed = block(features)
    assert computed.shape == features.shape
    assert computed.dtype == dtype
    assert torch.equal(features, copy)
    assert not torch.allclose(computed, features)
    for image, expected in zip(features, computed, strict=True):  # a batch of 1
        torch.testing.assert_close(block(image[None])[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("file", FILES)
def test_memory_format_changes_nothing(file: str) -> None:
    """Images lie channels last in memory, and so do the features of convolutions on them."""
    block = awake(block_of(file))
    features = torch.randn(2, CHANNELS, 5, 3, dtype=torch.float64)
    last = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(block(last), block(features))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_mixed_precision(file: str, dtype: torch.dtype) -> None:
    block = block_of(file).eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    features = torch.rand(2, CHANNELS, 6, 3).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = block(features)
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), block(features.float()), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("file", FILES)
def test_every_parameter_is_trained(file: str) -> None:
    block = awake(block_of(file)).train()
    features = torch.randn(2, CHANNELS, 5, 3, dtype=torch.float64, requires_grad=True)
    block(features).square().sum().backward()
    for name, tensor in [*block.named_parameters(), ("features", features)]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("file", FILES)
def test_state_dict_goes_to_a_file_and_to_another_size(file: str, tmp_path: Path) -> None:
    block = awake(block_of(file))
    names = set(block.state_dict())
    block(torch.randn(2, CHANNELS, 5, 3, dtype=torch.float64))
    assert set(block.state_dict()) == names
    save_file(block.state_dict(), tmp_path / "block.safetensors")
    other = block_of(file).double().eval()
    other(torch.randn(2, CHANNELS, 7, 2, dtype=torch.float64))
    other.load_state_dict(load_file(tmp_path / "block.safetensors"))
    features = torch.randn(1, CHANNELS, 4, 6, dtype=torch.float64)
    assert torch.equal(other(features), block(features))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.slow
def test_compiles(file: str) -> None:
    block = awake(block_of(file))
    features = torch.randn(2, CHANNELS, 5, 3, dtype=torch.float64)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), block(features))


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors of an argument, which may be a sequence; numbers have no device of their own."""
    if isinstance(value, Tensor) and value.dim():
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


class OneDevice(TorchFunctionMode):
    """Refuses an operation on tensors of two devices, as a GPU does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = [*args, *(kwargs or {}).values()]
        devices = {tensor.device.type for value in values for tensor in tensors_of(value)}
        if len(devices) > 1:
            raise RuntimeError(f"{func} of tensors on {' and '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("file", FILES)
def test_stays_on_the_device_of_the_features(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    with torch.device("meta"):  # tensors without values: no GPU is needed
        block, features = block_of(file), torch.empty(2, CHANNELS, 5, 3)
    with OneDevice():
        assert block(features).device.type == "meta"


@pytest.mark.parametrize("function", [torch.matmul, torch.add])
def test_two_devices_are_refused(function: Any) -> None:
    with OneDevice(), pytest.raises(RuntimeError, match="of tensors on cpu and meta"):
        function(torch.ones(2, 2), torch.ones(2, 2, device="meta"))


@pytest.mark.parametrize("file", FILES)
def test_a_network_finds_the_block_and_refuses_a_misspelt_option(file: str) -> None:
    options: dict[str, Any] = {"backbone": "resnet18", "block": file}
    after = {"stage2": {}, "stage3": {}}
    network = Network(5, NetworkOptions(**options, after=after))
    logits, _ = network(torch.randn(2, 3, 48, 32))
    assert logits.shape == (2, 5)
    with pytest.raises(ValueError, match=f"an option of block {file} is wrong: .*colour"):
        Network(5, NetworkOptions(**options, after={"stage2": {"colour": 1}}))


# By value: each paper's equations, one number at a time.


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softmax(values: Sequence[float]) -> list[float]:
    return [math.exp(value) / sum(math.exp(other) for other in values) for value in values]


def vectors(image: Image) -> list[list[float]]:
    """The C numbers at each of the M positions, row by row."""
    _, height, width = image.shape
    return [image[:, y, x].tolist() for y in range(height) for x in range(width)]


def times(weight: Tensor, vector: Sequence[float]) -> list[float]:
    """Matrix times vector; the matrix may be that of a 1 x 1 convolution."""
    return [dot(row, vector) for row in weight.flatten(1).tolist()]


def slow_norm_and_residual(
    norm: nn.BatchNorm2d, positions: list[list[float]], image: Image
) -> Image:
    computed = image.copy()
    channels, height, width = image.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                deviation = math.sqrt(norm.running_var[c].item() + norm.eps)
                centred = positions[y * width + x][c] - norm.running_mean[c].item()
                scaled = norm.weight[c].item() * centred / deviation + norm.bias[c].item()
                computed[c, y, x] += scaled
    return computed


def slow_non_local(block: NonLocal, image: Image) -> Image:
    x = vectors(image)
    restored = []
    for i in range(len(x)):
        if block.similarity == "gaussian":
            exponents = [dot(x[i], x[j]) for j in range(len(x))]
        else:
            query = times(block.query.weight, x[i])
            exponents = [dot(query, times(block.key.weight, x[j])) for j in range(len(x))]
        if block.similarity == "dot_product":
            f, factor = exponents, len(x)
        else:
            f = [math.exp(exponent) for exponent in exponents]
            factor = sum(f)
        values = [times(block.value.weight, x[j]) for j in range(len(x))]
        y = [dot(f, column) / factor for column in zip(*values, strict=True)]
        restored.append(times(block.output.weight, y))
    return slow_norm_and_residual(block.norm, restored, image)


def slow_graph_convolution(block: GraphConvolution, image: Image) -> Image:
    _, height, width = image.shape
    x = vectors(image)

    def near(i: int) -> list[int]:
        """Itself and its neighbours on the map."""
        row, column = divmod(i, width)
        steps = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
        places = [(row + down, column + right) for down, right in steps]
        return [a * width + b for a, b in places if 0 <= a < height and 0 <= b < width]

    gathered = []
    for i in range(len(x)):
        total = [0.0] * len(x[i])
        for j in near(i):
            weight = 1 / math.sqrt(len(near(i)) * len(near(j)))
            transformed = times(block.transform.weight, x[j])
            total = [a + weight * b for a, b in zip(total, transformed, strict=True)]
        gathered.append(total)
    return slow_norm_and_residual(block.norm, gathered, image)


def slow_released_ia(block: IABlock, image: Image) -> Image:
    """The authors' code, see ../shared/golden/README.md: K = 1, and CIA's products not scaled."""
    channels, _, width = image.shape
    x = vectors(image)
    sigma_x, sigma_y = block.sia.sigma
    gathered = []
    for i in range(len(x)):
        exponents, products = [], []
        for j in range(len(x)):
            down, right = j // width - i // width, j % width - i % width
            exponents.append(-(right**2 / (2 * sigma_x**2)) - down**2 / (2 * sigma_y**2))
            products.append(dot(x[i], x[j]) / math.sqrt(channels))
        both = zip(softmax(exponents), softmax(products), strict=True)
        s = softmax([location * appearance for location, appearance in both])
        gathered.append([dot(s, column) for column in zip(*x, strict=True)])
    after_sia = slow_norm_and_residual(block.sia.norm, gathered, image)
    maps = [after_sia[c].flatten().tolist() for c in range(channels)]
    mixed = []
    for c in range(channels):
        weights = softmax([dot(maps[c], maps[d]) for d in range(channels)])
        mixed.append([dot(weights, column) for column in zip(*maps, strict=True)])
    positions = [list(position) for position in zip(*mixed, strict=True)]
    return slow_norm_and_residual(block.cia.norm, positions, after_sia)


def perceptron(block: Any, pooled: Sequence[float]) -> list[float]:
    hidden = [max(value, 0.0) for value in times(block.reduce.weight, pooled)]
    return times(block.expand.weight, hidden)


def slow_squeeze_excitation(block: SqueezeExcitation, image: Image) -> Image:
    channels, height, width = image.shape
    z = [sum(image[c].flatten().tolist()) / (height * width) for c in range(channels)]
    s = [sigmoid(value) for value in perceptron(block, z)]
    return np.stack([s[c] * image[c] for c in range(channels)])


def slow_cbam(block: ConvolutionalBlockAttention, image: Image) -> Image:
    channels, height, width = image.shape
    means = [sum(image[c].flatten().tolist()) / (height * width) for c in range(channels)]
    maxima = [max(image[c].flatten().tolist()) for c in range(channels)]
    both = zip(perceptron(block, means), perceptron(block, maxima), strict=True)
    refined = np.stack([sigmoid(a + b) * image[c] for c, (a, b) in enumerate(both)])
    kernel = block.spatial.weight[0].tolist()
    computed = refined.copy()
    for y in range(height):
        for x in range(width):
            total = 0.0
            for down in range(-3, 4):
                for right in range(-3, 4):
                    if 0 <= y + down < height and 0 <= x + right < width:
                        column = refined[:, y + down, x + right].tolist()
                        mean, maximum = sum(column) / channels, max(column)
                        total += kernel[0][down + 3][right + 3] * mean
                        total += kernel[1][down + 3][right + 3] * maximum
            computed[:, y, x] *= sigmoid(total)
    return computed


def slow_sca_cnn(block: SpatialChannelAttention, image: Image) -> Image:
    channels, height, width = image.shape

    def by_position(features: Image) -> Image:
        weight, bias = block.embed_positions.weight, block.embed_positions.bias.tolist()
        scores = []
        for v in vectors(features):
            a = [math.tanh(p + b) for p, b in zip(times(weight, v), bias, strict=True)]
            scores += times(block.score_positions.weight, a)
        alpha = softmax(scores)
        computed = features.copy()
        for i, weight_of_position in enumerate(alpha):
            computed[:, i // width, i % width] *= height * width * weight_of_position
        return computed

    def by_channel(features: Image) -> Image:
        weight, bias = (
            block.embed_channels.weight[:, 0].tolist(),
            block.embed_channels.bias.tolist(),
        )
        scores = []
        for c in range(channels):
            v = sum(features[c].flatten().tolist()) / (height * width)
            b = [math.tanh(w * v + constant) for w, constant in zip(weight, bias, strict=True)]
            scores += times(block.score_channels.weight, b)
        beta = softmax(scores)
        return np.stack([channels * beta[c] * features[c] for c in range(channels)])

    if block.order == "channel-spatial":
        return by_position(by_channel(image))
    return by_channel(by_position(image))


Slow = Callable[[Any, Image], Image]
CASES = [
    *(
        pytest.param(NonLocal(4, similarity=name), 4, slow_non_local, id=f"non_local-{name}")
        for name in SIMILARITIES
    ),
    pytest.param(NonLocal(5), 5, slow_non_local, id="non_local-bottleneck-rounded-down"),
    pytest.param(SqueezeExcitation(6, reduction=2), 6, slow_squeeze_excitation, id="squeeze"),
    pytest.param(ConvolutionalBlockAttention(6, reduction=2), 6, slow_cbam, id="cbam"),
    *(
        pytest.param(
            SpatialChannelAttention(4, order=name, common_space=3), 4, slow_sca_cnn, id=name
        )
        for name in ORDERS
    ),
    pytest.param(GraphConvolution(4), 4, slow_graph_convolution, id="graph_convolution"),
    pytest.param(
        IABlock(4, contexts=[1], scale="rsqrt_channels", sigma=(1, 2)),
        4,
        slow_released_ia,
        id="ia-released",
    ),
]


@pytest.mark.parametrize(("block", "channels", "slow"), CASES)
@pytest.mark.parametrize("size", [(4, 3), (2, 5), (1, 1)])
def test_by_slow_loops(block: nn.Module, channels: int, slow: Slow, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, channels, *size, dtype=torch.float64, generator=generator)
    computed = awake(block)(features).detach().numpy()
    expected = np.stack([slow(block, image.numpy()) for image in features])
    np.testing.assert_allclose(computed, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("block", "channels", "slow"), CASES)
def test_gradcheck(block: nn.Module, channels: int, slow: Slow) -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, channels, 3, 2, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(awake(block), features.requires_grad_())


# Properties.


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "block",
    [*(NonLocal(4, similarity=name) for name in SIMILARITIES), GraphConvolution(4)],
    ids=[*SIMILARITIES, "graph_convolution"],
)
def test_fresh_block_is_the_identity(block: nn.Module, training: bool) -> None:
    features = torch.randn(3, 4, 5, 2)
    assert torch.equal(block.train(training)(features), features)


RESIDUAL: dict[str, Callable[..., nn.Module]] = {
    "NonLocal": NonLocal,
    "GraphConvolution": GraphConvolution,
    "SpatialIA": SpatialIA,
    "ChannelIA": ChannelIA,
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_initial_scale_multiplies_the_residual(name: str) -> None:
    features = torch.randn(3, 4, 5, 2, dtype=torch.float64)
    residuals = {}
    for scale in (0.125, 1.0):  # exact in float32
        torch.manual_seed(3)  # of the weights before the BatchNorm
        block = RESIDUAL[name](4, initial_scale=scale).double()
        assert torch.equal(block.norm.weight, torch.full((4,), scale, dtype=torch.float64))
        assert torch.equal(block.norm.bias, torch.zeros(4, dtype=torch.float64))
        residuals[scale] = block(features) - features
    assert residuals[1.0].square().mean().item() == pytest.approx(1, rel=0.01)  # normalised
    torch.testing.assert_close(residuals[0.125], 0.125 * residuals[1.0])


def test_the_initial_scale_of_an_ia_block_is_that_of_both_modules() -> None:
    block = IABlock(4, initial_scale=0.1)
    for module in (block.sia, block.cia):
        assert torch.equal(module.norm.weight, torch.full((4,), 0.1))


def permuted(features: Tensor, order: Tensor) -> Tensor:
    """The positions in another order."""
    return features.flatten(2)[:, :, order].view_as(features)


@pytest.mark.parametrize(
    "block",
    [
        *(NonLocal(4, similarity=name) for name in SIMILARITIES),
        SqueezeExcitation(4, reduction=2),
        *(SpatialChannelAttention(4, order=name) for name in ORDERS),
    ],
    ids=[*SIMILARITIES, "squeeze_excitation", *ORDERS],
)
def test_blocks_without_a_geometry_commute_with_permutations_of_positions(block: nn.Module) -> None:
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    order = torch.randperm(15)
    torch.testing.assert_close(
        awake(block)(permuted(features, order)), permuted(block(features), order)
    )


def test_gaussian_non_local_is_the_single_context_appearance_relation() -> None:
    """Section 3.5: "NL can be seen a special case of SIA in the single-context version"."""
    features = torch.randn(2, 4, 3, 5)
    relation = NonLocal(4, similarity="gaussian").relation(features)
    torch.testing.assert_close(relation, appearance_relation(features, 1))


def test_non_local_relations_stay_in_float32_under_mixed_precision() -> None:
    """C = 1024 features of 16 pass float16's largest number, 65,504, in one dot product."""
    features = torch.full((1, 1024, 2, 2), 16.0, dtype=torch.float16)
    relation = NonLocal(1024, similarity="gaussian").relation(features)
    torch.testing.assert_close(relation, torch.full((1, 4, 4), 0.25))


def test_squeeze_excitation_has_the_papers_parameters() -> None:
    """2 C^2 / r for a block (Section 4)."""
    assert count_parameters(SqueezeExcitation(512)) == 2 * 512**2 // 16


@pytest.mark.parametrize(
    ("block", "factor"),
    [(SqueezeExcitation(4, reduction=2), 2), (ConvolutionalBlockAttention(4, reduction=2), 4)],
)
def test_gates_without_weights_are_a_half(block: nn.Module, factor: int) -> None:
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    features = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(block(features), features / factor)


def test_cbam_gates_lie_between_0_and_1() -> None:
    block = awake(ConvolutionalBlockAttention(8, reduction=2))
    features = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    for gate in (block.channel_attention(features), block.spatial_attention(features)):
        assert gate.min() > 0
        assert gate.max() < 1


def test_sca_cnn_attention_has_mean_one_and_leaves_even_features_alone() -> None:
    block = awake(SpatialChannelAttention(4, common_space=8))
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(block.spatial_attention(features).mean((1, 2, 3)), ones)
    torch.testing.assert_close(block.channel_attention(features).mean((1, 2, 3)), ones)
    even = torch.full_like(features, 0.7)
    torch.testing.assert_close(block(even), even)


def test_sca_cnn_channel_attention_follows_permutations_of_channels() -> None:
    """One function of a channel's mean serves all channels."""
    block = awake(SpatialChannelAttention(6))
    features, order = torch.randn(2, 6, 4, 3, dtype=torch.float64), torch.randperm(6)
    torch.testing.assert_close(
        block.channel_attention(features[:, order]), block.channel_attention(features)[:, order]
    )


def test_grid_adjacency_by_hand() -> None:
    # Two positions in a row: each has itself and the other, degree 2.
    half = torch.full((2, 2), 0.5, dtype=torch.float64)
    torch.testing.assert_close(grid_adjacency(1, 2), half)
    torch.testing.assert_close(grid_adjacency(2, 1), half)
    # Three: the degrees are 2, 3 and 2, and the ends are no neighbours.
    side = 1 / math.sqrt(6)
    expected = torch.tensor([[1 / 2, side, 0], [side, 1 / 3, side], [0, side, 1 / 2]])
    torch.testing.assert_close(grid_adjacency(1, 3), expected.double())


def test_grid_adjacency_of_a_constant_map() -> None:
    """Kept inside, where all degrees are 5; what is kept everywhere is the root of the degree."""
    adjacency = grid_adjacency(6, 5)
    kept = adjacency.sum(1).view(6, 5)
    torch.testing.assert_close(kept[2:-2, 2:-2], torch.ones(2, 1, dtype=torch.float64))
    assert (kept[0] > 1).any()
    root = (adjacency > 0).sum(1).double().sqrt()
    torch.testing.assert_close(adjacency @ root, root)
    assert torch.linalg.eigvalsh(adjacency).abs().max() <= 1 + 1e-12


def test_graph_convolution_reaches_neighbours_only() -> None:
    block = awake(GraphConvolution(4))
    features = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    moved = features.clone()
    moved[0, :, 2, 1] += 1
    changed = (block(moved) - block(features)).abs().amax((0, 1)) > 1e-9
    near = torch.zeros(5, 5, dtype=torch.bool)
    near[2, 0:3] = near[1:4, 1] = True
    assert torch.equal(changed, near)


# Costs and errors.


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        # theta, phi, g and W_z are C x C / 2; Gram matrix and aggregation M^2 C / 2 each.
        (NonLocal(32), lambda c, m: 2 * c**2 * m + m**2 * c),
        (NonLocal(32, similarity="gaussian"), lambda c, m: c**2 * m + m**2 * c * 3 // 2),
        (SqueezeExcitation(32), lambda c, m: 2 * c**2 // 16),
        (ConvolutionalBlockAttention(32), lambda c, m: 2 * 2 * c**2 // 16 + 2 * 49 * m),
        (SpatialChannelAttention(32), lambda c, m: 512 * (c * m + m + 2 * c)),
        (GraphConvolution(32), lambda c, m: c**2 * m + m**2 * c),
    ],
)
def test_multiply_adds(block: nn.Module, expected: Callable[[int, int], int]) -> None:
    before = nn.Conv2d(3, 32, 1)
    added = count_multiply_adds(nn.Sequential(before, block), 6, 5) - count_multiply_adds(
        before, 6, 5
    )
    assert added == expected(32, 30)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NonLocal(4, similarity="cosine"), "similarity is 'cosine': choose one of embedd"),
        (lambda: NonLocal(1), "channels is 1: a bottleneck of half needs at least 2"),
        (lambda: NonLocal(4, initial_scale=-0.1), "initial_scale is -0.1: give a number of at"),
        (lambda: NonLocal(4, initial_scale=1e300), r"initial_scale is 1e\+300: give a number of"),
        (lambda: GraphConvolution(4, initial_scale=math.nan), "initial_scale is nan: give a numb"),
        (lambda: IABlock(4, initial_scale="0.1"), "initial_scale is '0.1': give a number of at"),
        (lambda: SqueezeExcitation(8, reduction=0), "reduction is 0: it must be from 1 to 8"),
        (lambda: SqueezeExcitation(8), "reduction is 16: it must be from 1 to 8 channels"),
        (lambda: ConvolutionalBlockAttention(8), "reduction is 16: it must be from 1 to 8"),
        (lambda: SpatialChannelAttention(8, order="c-s"), "order is 'c-s': choose one of channel"),
        (lambda: SpatialChannelAttention(8, common_space=0), "common_space is 0: it must be at"),
    ],
)
def test_wrong_options(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
