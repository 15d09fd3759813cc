"""Backbones, the network with its blocks, its cost, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from ianet import backbones
from ianet.blocks.ia import IABlock
from ianet.cost import multiply_adds, parameters
from ianet.network import Network, NetworkOptions, load, save

SIGMA = {"stage2": {"sigma": (10, 20)}, "stage3": {"sigma": (5, 10)}}


def network(*stages: str, **options: Any) -> Network:
    after = {stage: SIGMA.get(stage, {}) for stage in stages}
    return Network(5, NetworkOptions(**{"backbone": "resnet18", "after": after, **options}))


@pytest.mark.parametrize(
    ("name", "blocks", "channels"),
    [
        ("resnet18", [2, 2, 2, 2], [64, 128, 256, 512]),
        ("resnet34", [3, 4, 6, 3], [64, 128, 256, 512]),
        ("resnet50", [3, 4, 6, 3], [256, 512, 1024, 2048]),
        ("resnet101", [3, 4, 23, 3], [256, 512, 1024, 2048]),
        ("mobilenet_v2", [2, 3, 7, 5], [24, 32, 96, 1280]),
    ],
)
def test_stages(name: str, blocks: list[int], channels: list[int]) -> None:
    """Residual blocks, channels and resolutions: 1/4, 1/8, 1/16 and, last stride 1, 1/16."""
    backbone = backbones.build(name)
    features = backbone.stem(torch.randn(2, 3, 64, 32))
    shapes = []
    for stage in backbones.STAGES:
        for place, block in enumerate(backbone.stages[stage]):
            features = block(features)
            assert features.shape[1] == backbone.channels[stage][place]
        shapes.append(features.shape[1:])
    assert [len(backbone.stages[stage]) for stage in backbones.STAGES] == blocks
    assert shapes == [
        (channels[0], 16, 8),
        (channels[1], 8, 4),
        (channels[2], 4, 2),
        (channels[3], 4, 2),
    ]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_backbone_computes_what_torchvision_does_up_to_the_last_stride(
    name: str, tmp_path: Path
) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = backbones.build(name, str(tmp_path / "weights.safetensors"))
    images = torch.randn(2, 3, 64, 64)
    features = backbone.stem.eval()(images)
    for stage in ("stage1", "stage2", "stage3"):
        for block in backbone.stages[stage]:
            features = block.eval()(features)
    with torch.no_grad():
        if name == "mobilenet_v2":
            expected = model.features[:14](images)
        else:
            expected = model.maxpool(model.relu(model.bn1(model.conv1(images))))
            expected = model.layer3(model.layer2(model.layer1(expected)))
    torch.testing.assert_close(features, expected)


def test_cost_is_the_papers() -> None:
    """Section 4.3: base 4.06 G, SIA after stage 3 +0.034 G (0.03 in print); PROTOCOLS.md."""

    def giga(*stages: str, **options: Any) -> float:
        options = {"backbone": "resnet50", **options}
        return multiply_adds(network(*stages, **options), 256, 128) / 1e9

    base = giga()
    assert base == pytest.approx(4.06, abs=0.01)
    # Gram matrix and aggregation: 2 M^2 C, with M = 128 and C = 1024, or M = 512 and C = 512.
    sia = {"options": {"arrangement": "sia"}}
    assert giga("stage3", **sia) - base == pytest.approx(2 * 128**2 * 1024 / 1e9, abs=1e-9)
    assert giga("stage2", **sia) - base == pytest.approx(2 * 512**2 * 512 / 1e9, abs=1e-9)
    cia = {"options": {"arrangement": "cia"}}
    assert giga("stage3", **cia) - base == pytest.approx(0.268, abs=5e-4)
    assert giga("stage2", "stage3") - base == pytest.approx(0.84, abs=5e-3)


def test_parameters_of_blocks_are_those_of_their_batch_norms() -> None:
    # SIA and CIA: weight and bias for 128 and for 256 channels
    assert parameters(network("stage2", "stage3")) - parameters(network()) == 4 * (128 + 256)


def test_positions() -> None:
    def places(module: Network) -> dict[str, list[str]]:
        return {stage: list(blocks) for stage, blocks in module.blocks.items()}

    after = ("stage2", "stage3")
    assert places(network(*after, backbone="resnet50")) == {"stage2": ["3"], "stage3": ["5"]}
    every = places(network(*after, backbone="resnet50", position="block"))
    assert sum(map(len, every.values())) == 10  # "stage23-c adds 10 blocks", Section 4.3
    every = places(network(*after, backbone="mobilenet_v2", position="block"))
    assert sum(map(len, every.values())) == 10


def test_options_reach_the_block_of_their_stage() -> None:
    module = network("stage2", "stage3", options={"fusion": "max"})
    second, third = (module.blocks[stage]["1"] for stage in ("stage2", "stage3"))
    assert isinstance(second, IABlock)
    assert second.sia.sigma == (10, 20)
    assert third.sia.sigma == (5, 10)
    assert second.sia.fusion == third.sia.fusion == "max"


@pytest.mark.parametrize("position", ["stage", "block"])
def test_fresh_blocks_change_nothing_and_fit_a_network_without(position: str) -> None:
    base, with_blocks = network(), network("stage2", "stage3", position=position)
    missing, unexpected = with_blocks.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith("blocks.") for key in missing)
    images = torch.randn(2, 3, 64, 32)
    for one, other in zip(base(images), with_blocks(images), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(base.eval()(images), with_blocks.eval()(images))


def test_logits_and_embeddings_in_training_features_in_evaluation() -> None:
    module = network("stage3", neck=True)
    images = torch.randn(4, 3, 48, 32)
    logits, embeddings = module(images)
    assert logits.shape == (4, 5)
    assert embeddings.shape == (4, module.feature_size) == (4, 512)
    # The embedding is taken before the neck, the logits after it.
    torch.testing.assert_close(module.classifier(module.neck(embeddings)), logits)
    features = module.eval()(images)
    assert features.shape == (4, 512)
    module.neck.running_mean += 1  # the feature is taken after the neck
    assert not torch.allclose(module(images), features)


def test_a_neck_without_bias() -> None:
    """The mean embedding becomes the feature 0, and the feature 0 the logits 0, for ever."""
    module = network(neck=True, bias=False)
    module(torch.randn(4, 3, 48, 32))[0][:, 0].sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    mean = module.eval().neck.running_mean[None]
    torch.testing.assert_close(module.neck(mean), torch.zeros(1, 512), rtol=0, atol=1e-4)
    assert torch.equal(module.classifier(torch.zeros(1, 512)), torch.zeros(1, 5))
    assert not {"neck.bias", "classifier.bias"} & set(module.state_dict())


def test_save_and_load(tmp_path: Path) -> None:
    module = network("stage2", options={"fusion": "sum"}, neck=True, bias=False)
    module(torch.randn(4, 3, 32, 32))  # running statistics that are not the initial ones
    save(module, tmp_path)
    loaded = load(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), module.eval()(images))
    assert loaded.blocks["stage2"]["1"].sia.fusion == "sum"

    (tmp_path / "network.json").write_text('{"identities": 7')
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors does not exist"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet51"}, "backbone is 'resnet51': choose one of resnet18"),
        ({"block": "nonlocal"}, "there is no file ianet/blocks/nonlocal.py"),
        ({"block": "../relations"}, "there is no file"),
        ({"options": {"sigmas": 1}}, "an option of block ia is wrong: .*sigmas"),
        ({"position": "before"}, "position is 'before'"),
        ({"after": {"stage5": {}}}, "after names stage5: the stages are stage1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**{"after": {"stage2": {}}, **options})


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        network(weights=str(path))
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="cannot be read"):
        network(weights=str(path))
    save_file(torchvision.models.resnet34().state_dict(), path)
    with pytest.raises(ValueError, match=r"do not fit resnet50: \d+ of \d+ tensors"):
        network(weights=str(path), backbone="resnet50")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": print}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        network(weights=str(path))
