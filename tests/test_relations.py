"""Relations and IA blocks against golden values, slow loops, gradients and properties."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ianet import relations
from ianet.blocks.ia import ChannelIA, IABlock, SpatialIA
from ianet.relations import Scale

GOLDEN = np.load(Path(__file__).parent / "golden" / "relations.npz")
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


def patches(features: Tensor, context: int) -> Tensor:
    """The K x K patches themselves, (B, M, C * K * K): what the library never forms."""
    before = (context - 1) // 2
    padded = torch.nn.functional.pad(features, (before, context - 1 - before) * 2)
    return torch.nn.functional.unfold(padded, context).transpose(1, 2)


@pytest.mark.parametrize("context", [1, 2, 3, 4, 5, 7])
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
        block = awake(IABlock(4, arrangement=arrangement, relation="appearance", scale=0.3))
        assert {part.scale for part in (block.sia, block.cia) if part} == {0.3}
        torch.testing.assert_close(block(features), definition(block.sia, block.cia))


@pytest.mark.parametrize("normalization", ["softmax", "renormalized"])
@pytest.mark.parametrize("arrangement", ["sia-cia", "parallel"])
@pytest.mark.parametrize("scale", [1.0, "rsqrt_channels"])
def test_gradcheck(arrangement: str, normalization: str, scale: Scale) -> None:
    options = {"contexts": (1, 2, 3, 4), "sigma": (1, 2), "normalization": normalization}
    block = awake(IABlock(3, arrangement=arrangement, scale=scale, **options))
    features = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, features)


def test_images_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU goes through a batch in parts: of two images and one here, then of three."""
    block = awake(IABlock(4, arrangement="sia"))
    features = torch.randn(3, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for size in (2 * 4 * 15**2, 2**22):
        monkeypatch.setattr("ianet.blocks.ia.CACHE_BYTES", size)
        aggregated = block(features)
        found.append((aggregated, *torch.autograd.grad(aggregated.sin().sum(), features)))
    for parts, whole in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)


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


def test_large_features_do_not_overflow() -> None:
    """C = 1024 and K = 3 pass float16's largest number, 65,504; the maps stay finite."""
    features = torch.full((1, 1024, 4, 4), 4.0, dtype=torch.float16)
    assert relations.appearance_relation(features, 3).isfinite().all()


def test_state_dict_holds_only_batch_norms_and_loads_at_another_size() -> None:
    block = IABlock(4)
    block(torch.randn(2, 4, 6, 3))
    names = {".".join(name.split(".")[:2]) for name in block.state_dict()}
    assert names == {"sia.norm", "cia.norm"}
    IABlock(4, sigma=(10, 20)).load_state_dict(block.state_dict())
    assert block(torch.randn(2, 4, 8, 5)).shape == (2, 4, 8, 5)


def test_compiles() -> None:
    block = awake(IABlock(4, scale=0.5))
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), block(features))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "product"}, "fusion is 'product': choose one of prod, sum, max"),
        ({"relation": "cosine"}, "relation is 'cosine': choose one of appearance"),
        ({"normalization": "l1"}, "normalization is 'l1': choose one of softmax, renormalized"),
        ({"scale": "sqrt"}, "scale is 'sqrt': give a number"),
        ({"contexts": ()}, "contexts is empty"),
        ({"contexts": (0,), "relation": "appearance"}, "context is 0"),
        ({"sigma": (5,)}, "sigma is .5,.: give two numbers"),
        ({"sigma": (5, 0)}, "both standard deviations must be above 0"),
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
