"""Relations and IA blocks against golden values, slow loops, gradients and properties."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from ianet import relations
from ianet.blocks.ia import ChannelIA, IABlock, SpatialIA
from ianet.relations import Scale

ROOT = Path(__file__).parents[1]
GOLDEN = np.load(Path(__file__).parent / "golden" / "relations.npz")
RELEASED = ROOT.parent / "shared" / "golden" / "released_block.npz"
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})
SCALES = {"1": 1.0, "rsqrtC": "rsqrt_channels"}
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def sigma_of(key: str) -> tuple[float, float]:
    first, second = key.split("sigma=")[1].split(",")
    return float(first), float(second)


def compute(key: str, features: Tensor) -> Tensor:
    """What the library gives for a golden key."""
    _, *parts = key.split("/")
    height, width = features.shape[2:]
    match parts:
        case ["location", sigma]:
            return relations.location_relation(height, width, sigma_of(sigma))
        case ["channel", "relation"]:
            return ChannelIA(features.shape[1]).relation(features)[0]
        case ["channel", "aggregated"]:
            return ChannelIA(features.shape[1]).aggregate(features)[0]
        case [scale, "appearance", context]:
            size = int(context.removeprefix("K="))
            return relations.appearance_relation(
                features, size, SCALES[scale.removeprefix("scale=")]
            )[0]
        case [scale, "multi_context", fusion]:
            return relations.multi_context_relation(
                features, (1, 2, 3), fusion, SCALES[scale.removeprefix("scale=")]
            )[0]
        case [scale, ("semantic" | "aggregated") as what, sigma]:
            module = SpatialIA(
                features.shape[1],
                sigma=sigma_of(sigma),
                scale=SCALES[scale.removeprefix("scale=")],
            )
            if what == "semantic":
                return module.relation(features)[0]
            return module.aggregate(features)[0]
    raise AssertionError(f"a golden key that no test computes: {key}")


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("key", [key for key in GOLDEN.files if not key.endswith("features")])
def test_golden(key: str, dtype: torch.dtype, tolerance: float) -> None:
    features = torch.tensor(GOLDEN[f"{key.split('/')[0]}/features"], dtype=dtype)[None]
    computed = compute(key, features).double().numpy()
    np.testing.assert_allclose(computed, GOLDEN[key], rtol=0, atol=tolerance)


@pytest.mark.skipif(
    not RELEASED.exists(), reason="there is no ../shared/golden beside ../shared/data"
)
def test_the_network_stage23_released_has_the_block_of_the_authors_code() -> None:
    values = {key: torch.from_numpy(value) for key, value in np.load(RELEASED).items()}
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    options = params["networks"]["stage23-released"]["options"]
    features, sigma = values["features"], values["sigma"].tolist()
    block = IABlock(features.shape[1], sigma=sigma, **options).double().eval()
    norms = {name.replace("/", ".norm."): value for name, value in values.items() if "/" in name}
    counts = {name: value for name, value in block.state_dict().items() if "num_batches" in name}
    block.load_state_dict({**norms, **counts})
    torch.testing.assert_close(block(features), values["output"], rtol=0, atol=1e-8)


OFFSETS = {
    1: [0],
    2: [0, 1],
    3: [-1, 0, 1],
    4: [0, 1, 2, 3],
    5: [-2, -1, 0, 1, 2],
    6: [0, 1, 2, 3, 4, 5],
    7: [-3, -2, -1, 0, 1, 2, 3],
}
"""Of a K x K patch about its position, along either axis: see golden/README.md."""


def patches(features: Tensor, context: int) -> Tensor:
    """The K x K patches themselves, (B, M, C * K * K): what the library never forms."""
    offsets = OFFSETS[context]
    padded = torch.nn.functional.pad(features, (-offsets[0], offsets[-1]) * 2)
    return torch.nn.functional.unfold(padded, context).transpose(1, 2)


@pytest.mark.parametrize("context", OFFSETS)
def test_one_gram_matrix_equals_extracted_patches(context: int) -> None:
    features = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    extracted = patches(features, context)
    expected = torch.softmax(extracted @ extracted.transpose(1, 2), dim=-1)
    torch.testing.assert_close(relations.appearance_relation(features, context), expected)


def test_scale_rsqrt_channels_divides_the_dot_products() -> None:
    features = torch.randn(1, 9, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(
        relations.appearance_relation(features, 3, "rsqrt_channels"),
        relations.appearance_relation(features / math.sqrt(3), 3, 1.0),  # twice 9 ** -1/4
    )
    torch.testing.assert_close(
        relations.channel_relation(features, "rsqrt_channels"),
        relations.channel_relation(features, 1 / 3),
    )


def test_location_by_hand() -> None:
    # One row of two positions, sigma_1 = 1: weights 1 and exp(-1/2), whatever sigma_2 is.
    near = math.exp(-0.5)
    expected = torch.tensor([[1, near], [near, 1]], dtype=torch.float64) / (1 + near)
    torch.testing.assert_close(relations.location_relation(1, 2, (1.0, 9.0)), expected)
    torch.testing.assert_close(relations.location_relation(2, 1, (9.0, 1.0)), expected)


def test_renormalized_by_hand_and_where_a_row_vanishes() -> None:
    fused = torch.tensor([[1.0, 3.0], [0.0, 0.0]], requires_grad=True)
    normalized = relations.normalize(fused, "renormalized")
    torch.testing.assert_close(normalized, torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    normalized[:, 0].sum().backward()
    # d(a / (a + b)) = (b, -a) / (a + b)^2, and nothing through the row that vanished
    torch.testing.assert_close(fused.grad, torch.tensor([[3 / 16, -1 / 16], [0.0, 0.0]]))


@pytest.mark.parametrize("relation", ["appearance", "location", "semantic", "uniform"])
@pytest.mark.parametrize("fusion", ["prod", "sum", "max"])
@pytest.mark.parametrize("normalization", ["softmax", "renormalized"])
def test_rows_are_distributions(relation: str, fusion: str, normalization: str) -> None:
    module = SpatialIA(5, relation=relation, fusion=fusion, normalization=normalization)
    rows = module.relation(torch.randn(2, 5, 4, 3))
    assert rows.shape == (2, 12, 12)
    assert rows.min() >= 0
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 12))


def test_uniform_is_global_average_pooling() -> None:
    features = torch.randn(2, 3, 4, 5)
    gathered = SpatialIA(3, relation="uniform").aggregate(features)
    torch.testing.assert_close(gathered, features.mean((2, 3), keepdim=True).expand_as(features))


def test_literal_semantic_relation_is_almost_uniform() -> None:
    """Softmax of softmax: no weight of a row, 16 x 8, is over 1.0003 times another."""
    rows = SpatialIA(64).relation(torch.randn(1, 64, 16, 8))
    ratio = (rows.amax(-1) / rows.amin(-1)).max()
    assert 1 < ratio <= 1.0003
    sharp = SpatialIA(64, normalization="renormalized").relation(torch.randn(1, 64, 16, 8))
    assert (sharp.amax(-1) / sharp.amin(-1)).min() > 100


@pytest.mark.parametrize("context", [10**9, 10**9 + 1])
def test_a_patch_beyond_the_map_takes_no_time(context: int) -> None:
    features = torch.randn(1, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    expected = relations.appearance_relation(features, 10 + context % 2)
    assert torch.equal(relations.appearance_relation(features, context), expected)


def test_single_context_appearance_is_equation_1() -> None:
    features = torch.randn(1, 4, 3, 3)
    module = SpatialIA(4, relation="appearance", contexts=(3,))
    torch.testing.assert_close(
        module.relation(features), relations.appearance_relation(features, 3)
    )


BLOCKS = [
    SpatialIA(4, sigma=(1.0, 2.0)),
    ChannelIA(4),
    *(IABlock(4, arrangement=name) for name in ("sia", "cia", "sia-cia", "cia-sia", "parallel")),
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_fresh_block_is_the_identity(block: torch.nn.Module, training: bool) -> None:
    features = torch.randn(3, 4, 5, 2)
    assert torch.equal(block.train(training)(features), features)


def awake(block: torch.nn.Module) -> torch.nn.Module:
    """The block in float64, evaluation mode, its BatchNorms away from zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return block.double().eval()


def test_arrangements_by_their_definitions() -> None:
    features = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    definitions = {
        "sia": lambda sia, cia: sia(features),
        "cia": lambda sia, cia: cia(features),
        "sia-cia": lambda sia, cia: cia(sia(features)),
        "cia-sia": lambda sia, cia: sia(cia(features)),
        "parallel": lambda sia, cia: sia(features) + cia(features) - features,
    }
    for arrangement, definition in definitions.items():
        options = {"relation": "appearance", "scale": 0.3, "channel_scale": 0.7}
        block = awake(IABlock(4, arrangement=arrangement, **options))
        assert block.sia is None or block.sia.scale == 0.3
        assert block.cia is None or block.cia.scale == 0.7
        torch.testing.assert_close(block(features), definition(block.sia, block.cia))


@pytest.mark.parametrize("normalization", ["softmax", "renormalized"])
@pytest.mark.parametrize("arrangement", ["sia-cia", "parallel"])
@pytest.mark.parametrize("scale", [1.0, "rsqrt_channels"])
def test_gradcheck(arrangement: str, normalization: str, scale: Scale) -> None:
    options = {"contexts": (1, 2, 3, 4), "sigma": (1, 2), "normalization": normalization}
    block = awake(IABlock(3, arrangement=arrangement, scale=scale, channel_scale=scale, **options))
    features = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, features)


def test_images_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU goes through a batch in parts: of two images and one here, then of three."""
    block = awake(IABlock(4, arrangement="sia"))
    features = torch.randn(3, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for size in (2 * 4 * 15**2, 2**22):
        monkeypatch.setattr("ianet.blocks.ia.CACHE_BYTES", size)
        aggregated = block(features)
        results.append((aggregated, *torch.autograd.grad(aggregated.sin().sum(), features)))
    for parts, at_once in zip(*results, strict=True):
        torch.testing.assert_close(parts, at_once, rtol=0, atol=1e-14)


def test_mixed_precision_keeps_relations_in_float32() -> None:
    block = IABlock(64)
    torch.nn.init.ones_(block.sia.norm.weight)
    torch.nn.init.ones_(block.cia.norm.weight)
    features = torch.randn(2, 64, 6, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        relation = block.sia.relation(features.bfloat16())
        mixed = block(features.bfloat16())
    assert relation.dtype == torch.float32
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(
        relation, block.sia.relation(features.bfloat16().float()), rtol=0, atol=0
    )


RELATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "appearance": lambda features: relations.appearance_relation(features, 3),
    "multi_context": relations.multi_context_relation,
    "renormalized": lambda features: relations.multi_context_relation(
        features, fusion="max", normalization="renormalized"
    ),
    "semantic": lambda features: relations.semantic_relation(
        relations.appearance_relation(features, 1),
        relations.location_relation(6, 4, (1, 2)),
        normalization="renormalized",
    ),
    "channel": relations.channel_relation,
}


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_relations_and_gradients_in_float32(name: str, dtype: torch.dtype) -> None:
    features = torch.randn(2, 8, 6, 4, requires_grad=True)
    direction = torch.randn(RELATIONS[name](features).shape)
    results = []
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            relation = RELATIONS[name](features)
            results.append((relation, *torch.autograd.grad((relation * direction).sum(), features)))
    for plain, mixed in zip(*results, strict=True):
        assert mixed.dtype == torch.float32
        assert torch.equal(mixed, plain)


def test_large_features_do_not_overflow() -> None:
    """C = 1024 and K = 3 exceed float16's largest number, 65,504; the maps stay finite.

    The inner positions have the largest dot products, 16 * 1024 * 9, and gather each other alone.
    """
    features = torch.full((1, 1024, 4, 4), 4.0, dtype=torch.float16)
    expected = torch.zeros(16)
    expected[[5, 6, 9, 10]] = 0.25
    assert torch.equal(relations.appearance_relation(features, 3)[0, 5], expected)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(relations.appearance_relation(features.float(), 3)[0, 5], expected)


def test_state_dict_holds_only_batch_norms_and_loads_at_another_size() -> None:
    block = IABlock(4)
    block(torch.randn(2, 4, 6, 3))
    names = {".".join(name.split(".")[:2]) for name in block.state_dict()}
    assert names == {"sia.norm", "cia.norm"}
    IABlock(4, sigma=(10, 20)).load_state_dict(block.state_dict())
    assert block(torch.randn(2, 4, 8, 5)).shape == (2, 4, 8, 5)


def count_locations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list of the sizes of the location relations that are computed from now on."""
    sizes: list[tuple[int, int]] = []
    compute = relations.location_relation

    def count(height: int, width: int, *arguments: object, **options: object) -> Tensor:
        sizes.append((height, width))
        return compute(height, width, *arguments, **options)

    monkeypatch.setattr(relations, "location_relation", count)
    return sizes


@pytest.mark.parametrize("relation", ["location", "semantic"])
def test_the_location_relation_is_computed_once_for_each_size_sigma_and_type(
    relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ianet.blocks.ia.CACHE_BYTES", 1)  # each image is a part of its own
    sizes = count_locations(monkeypatch)
    sigma = (1.01, 2.02) if relation == "location" else (1.03, 2.06)  # of no other test
    block, same = (awake(SpatialIA(4, relation=relation, sigma=sigma)) for _ in range(2))
    other = awake(SpatialIA(4, relation=relation, sigma=(sigma[0], sigma[0])))
    sizes.clear()  # of the options' checks
    features = torch.randn(3, 4, 5, 3, dtype=torch.float64)
    expected = block(features)
    assert torch.equal(block(features), expected)
    assert torch.equal(same(features), expected)
    assert torch.equal(deepcopy(block)(features), expected)
    assert sizes == [(5, 3)]
    assert not torch.equal(other(features), expected)
    assert sizes == [(5, 3)] * 2
    block.float()(features.float())
    assert sizes == [(5, 3)] * 3
    block(features.float().transpose(2, 3))
    assert sizes == [(5, 3)] * 3 + [(3, 5)]


def test_kept_relations_are_no_part_of_a_block() -> None:
    block = awake(IABlock(4, relation="location"))
    before = len(pickle.dumps(block))
    features = torch.randn(2, 4, 16, 8, dtype=torch.float64)
    expected = block(features)
    assert len(pickle.dumps(block)) < before + 1000  # the map alone has 128 * 128 * 8 bytes
    assert torch.equal(pickle.loads(pickle.dumps(block))(features), expected)


@pytest.mark.parametrize("relation", ["location", "semantic", "uniform"])
def test_a_training_after_inference_mode(relation: str) -> None:
    block = awake(SpatialIA(4, relation=relation, sigma=(1.07, 2.14)))
    features = torch.randn(2, 4, 6, 7, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        expected = block(features)
    computed = block(features)
    assert torch.equal(computed, expected)
    computed.sum().backward()
    assert features.grad is not None


@pytest.mark.parametrize("sigma", [(1.11, 2.22), (1.13, 2.26)])
def test_a_relation_without_values_is_not_kept(sigma: tuple[float, float]) -> None:
    """Neither does a kept relation with values reach tensors without values."""
    features = torch.randn(2, 4, 5, 3)
    block = SpatialIA(4, relation="location", sigma=sigma)
    expected = relations.location_relation(5, 3, sigma, dtype=torch.float32).expand(2, -1, -1)
    for _ in range(2):
        exported = torch.export.export(block.eval(), (features,), strict=False)  # without values
        torch.testing.assert_close(exported.module()(features), block(features))
        assert torch.equal(block.relation(features), expected)


@pytest.mark.slow
def test_compiles_at_several_sizes_after_relations_were_kept() -> None:
    torch.compiler.reset()
    block = awake(SpatialIA(4))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for size in ((5, 3), (6, 2), (7, 4)):
        features = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(block(features), compiled(features))


@pytest.mark.slow
def test_compiles() -> None:
    block = awake(IABlock(4, scale=0.5, channel_scale=0.5))
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), block(features))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "product"}, "fusion is 'product': choose one of prod, sum, max"),
        ({"relation": "cosine"}, "relation is 'cosine': choose one of appearance"),
        ({"normalization": "l1"}, "normalization is 'l1': choose one of softmax, renormalized"),
        ({"scale": "sqrt"}, "scale is 'sqrt': give a finite number"),
        ({"channel_scale": "sqrt", "arrangement": "sia"}, "scale is 'sqrt': give a finite number"),
        ({"contexts": ()}, "contexts is empty"),
        ({"contexts": (0,), "relation": "appearance"}, "context is 0"),
        ({"contexts": (math.nan,)}, "context is nan: give a whole number of positions, from 1"),
        ({"sigma": ("2026-01-01", 1)}, "sigma is .*: give two numbers, sigma_1 and sigma_2"),
        ({"sigma": (10**400, 1)}, "sigma is .*: give two numbers, sigma_1 and sigma_2"),
        ({"sigma": (5,)}, "sigma is .5,.: give two numbers"),
        ({"sigma": "25"}, "sigma is 25: give two numbers"),
        ({"sigma": ("5", "10")}, "sigma is .*: give two numbers"),
        ({"sigma": (5, "7", 10)}, "sigma is .*: give two numbers"),
        ({"sigma": (5, True)}, "sigma is .*: give two numbers"),
        ({"scale": math.nan}, "scale is nan: give a finite number"),
        ({"sigma": (5, 0)}, "both standard deviations must be finite and above 0"),
        ({"sigma": (5, math.nan)}, "both standard deviations must be finite and above 0"),
        ({"sigma": (math.inf, 5)}, "both standard deviations must be finite and above 0"),
        ({"arrangement": "both"}, "arrangement is 'both': choose one of sia, cia"),
    ],
)
def test_wrong_options_are_told_when_the_block_is_built(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        IABlock(4, **options)


def test_misspelt_option_is_refused_in_every_arrangement() -> None:
    with pytest.raises(TypeError, match="sigmas"):
        IABlock(4, arrangement="cia", sigmas=(5, 10))
