"""Backbones, the network with its blocks, its cost, and its files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

import ianet
from ianet import backbones
from ianet.blocks.ia import IABlock
from ianet.cost import count_multiply_adds, count_parameters
from ianet.network import Network, load, save
from ianet.options import BACKBONES, STAGES, NetworkOptions

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
        ("googlenet", [2, 2, 5, 2], [192, 480, 832, 1024]),
    ],
)
def test_stages(name: str, blocks: list[int], channels: list[int]) -> None:
    """Residual blocks, channels and resolutions: 1/4, 1/8, 1/16 and, last stride 1, 1/16."""
    backbone = backbones.build(name)
    features = backbone.stem(torch.randn(2, 3, 64, 32))
    shapes = []
    for stage in STAGES:
        for place, block in enumerate(backbone.stages[stage]):
            features = block(features)
            assert features.shape[1] == backbone.channels[stage][place]
        shapes.append(features.shape[1:])
    assert [len(backbone.stages[stage]) for stage in STAGES] == blocks
    assert shapes == [
        (channels[0], 16, 8),
        (channels[1], 8, 4),
        (channels[2], 4, 2),
        (channels[3], 4, 2),
    ]


def torchvisions(name: str) -> torch.nn.Module:
    """torchvision's network, GoogLeNet as it is with its ImageNet weights."""
    options = {"init_weights": True, "transform_input": True} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("resnet18", "layer3"),
        ("resnet50", "layer3"),
        ("mobilenet_v2", "features.13"),
        ("googlenet", "inception4e"),
    ],
)
def test_backbone_computes_what_torchvision_does_up_to_the_last_stride(
    name: str, end: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)  # others can make a variance that is almost 0
    model = torchvisions(name)
    images = torch.randn(2, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # one pass makes the images' statistics the running ones:
    model.train()(images)  # with the initial ones, GoogLeNet's first weights let them vanish
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = backbones.build(name, str(tmp_path / "weights.safetensors"))
    images = images.double()
    features = backbone.stem.double().eval()(images)
    for stage in ("stage1", "stage2", "stage3"):
        for block in backbone.stages[stage]:
            features = block.double().eval()(features)
    extractor = create_feature_extractor(model.double().eval(), [end], suppress_diff_warning=True)
    expected = extractor(images)[end]
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert (features[0] - features[1]).std() > 0.1


@pytest.mark.slow
def test_cost_is_the_papers() -> None:
    """Section 4.3: base 4.06 G, SIA after stage 3 +0.034 G (0.03 in print)."""

    def giga(*stages: str, **options: Any) -> float:
        options = {"backbone": "resnet50", **options}
        return count_multiply_adds(network(*stages, **options), 256, 128) / 1e9

    base = giga()
    assert base == pytest.approx(4.06, abs=0.01)
    # Gram matrix and aggregation: 2 M^2 C, with M = 128 and C = 1024, or M = 512 and C = 512.
    sia = {"options": {"arrangement": "sia"}}
    assert giga("stage3", **sia) - base == pytest.approx(2 * 128**2 * 1024 / 1e9, abs=1e-9)
    assert giga("stage2", **sia) - base == pytest.approx(2 * 512**2 * 512 / 1e9, abs=1e-9)
    cia = {"options": {"arrangement": "cia"}}
    assert giga("stage3", **cia) - base == pytest.approx(0.268, abs=5e-4)
    assert giga("stage2", "stage3") - base == pytest.approx(0.84, abs=5e-3)


def test_cost_of_resnet18_is_that_worked_by_hand() -> None:
    base = count_multiply_adds(network(backbone="resnet18"), 128, 64)
    # On 128x64 with stride 1 in stage 4: the stem, then four stages, each with a first convolution,
    # three others, and but for stage 1 a shortcut.
    positions = (64 * 32, 32 * 16, 16 * 8, 8 * 4, 8 * 4)
    operations = positions[0] * 7 * 7 * 3 * 64 + positions[1] * 4 * 9 * 64 * 64
    for place, channels in zip(positions[2:], (128, 256, 512), strict=True):
        operations += place * channels * (9 * channels // 2 + 3 * 9 * channels + channels // 2)
    assert base == operations
    squeeze = Network(
        5,
        NetworkOptions("resnet18", block="squeeze_excitation", after={"stage2": {}, "stage3": {}}),
    )
    # Two linear layers to and from a sixteenth of the channels, after the stages 2 and 3.
    assert count_multiply_adds(squeeze, 128, 64) == operations + 2 * (128 * 8 + 256 * 16)


def test_cost_of_googlenet_is_torchvisions_with_the_last_modules_at_four_times_the_size() -> None:
    model = torchvisions("googlenet")
    # As torchvision says.
    assert count_multiply_adds(model, 224, 224) == pytest.approx(1.498e9, abs=5e5)
    # 5a and 5b at 1/32, from the channels of Table 1 (5 x 5 is 3 x 3 there, a known deviation)
    first = 832 * (256 + 160 + 32 + 128) + 9 * (160 * 320 + 32 * 128)
    second = 832 * (384 + 192 + 48 + 128) + 9 * (192 * 384 + 48 * 128)
    classifier = 1024 * 1000  # ours gives features in evaluation mode
    expected = count_multiply_adds(model, 256, 128) + 3 * 8 * 4 * (first + second) - classifier
    ours = network(backbone="googlenet")
    assert count_multiply_adds(ours, 256, 128) == expected
    without = count_parameters(ours) - count_parameters(ours.classifier)
    # torchvision's count has no auxiliaries.
    assert without == 6_624_904 - count_parameters(model.fc)


def test_parameters_of_blocks_are_those_of_their_batch_norms() -> None:
    # SIA and CIA: weight and bias for 128 and for 256 channels
    more = count_parameters(network("stage2", "stage3")) - count_parameters(network())
    assert more == 4 * (128 + 256)


def test_positions() -> None:
    def places(module: Network) -> dict[str, list[str]]:
        return {stage: list(blocks) for stage, blocks in module.blocks.items()}

    after = ("stage2", "stage3")
    assert places(network(*after, backbone="resnet50")) == {"stage2": ["3"], "stage3": ["5"]}
    every = places(network(*after, backbone="resnet50", position="block"))
    assert sum(map(len, every.values())) == 10  # "stage23-c adds 10 blocks", Section 4.3
    every = places(network(*after, backbone="mobilenet_v2", position="block"))
    assert sum(map(len, every.values())) == 10
    assert places(network(*after, backbone="googlenet")) == {"stage2": ["1"], "stage3": ["4"]}


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


def test_embeddings_after_the_neck() -> None:
    module = network(neck=True, embeddings="neck")
    pooled = network(neck=True)
    pooled.load_state_dict(module.state_dict())
    images = torch.randn(4, 3, 48, 32)
    logits, embeddings = module(images)
    expected, before = pooled(images)
    assert torch.equal(logits, expected)
    torch.testing.assert_close(embeddings, nn.BatchNorm1d(512)(before))


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
    save(module, tmp_path, dataset="market1501", height=32, width=16)
    loaded = load(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), module.eval()(images))
    assert loaded.blocks["stage2"]["1"].sia.fusion == "sum"
    assert not loaded.training


def test_the_description_says_what_a_user_of_the_network_needs(saved: Path) -> None:
    content = json.loads((saved / "network.json").read_text())
    assert content.pop("options")["backbone"] == "resnet18"
    assert content == {
        "dataset": "market1501",
        "identities": 5,
        "input": {
            "height": 256,
            "width": 128,
            "channels": "RGB",
            "resize": "bilinear, antialiased",
            "scale": [0.0, 1.0],
            "mean": [0.485, 0.456, 0.406],
            "deviation": [0.229, 0.224, 0.225],
        },
        "features": {"size": 512, "distance": "cosine", "normalized": False},
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "ianet": ianet.__version__,
            "torch": version("torch"),
            "torchvision": version("torchvision"),
        },
    }
    description = load(saved).description
    assert description.dataset == "market1501"
    assert (description.input.height, description.input.width) == (256, 128)
    assert description.input.mean == (0.485, 0.456, 0.406)
    assert description.features.size == 512
    assert description.versions == content["versions"]
    assert not description.features.normalized
    assert load(saved)(torch.randn(1, 3, 64, 32)).norm().item() != pytest.approx(1)


def test_initial_weights_are_not_read_again(tmp_path: Path) -> None:
    initial = tmp_path / "initial.safetensors"
    save_file(torchvision.models.resnet18().state_dict(), initial)
    save(network(weights=str(initial)), tmp_path, dataset="own", height=64, width=32)
    initial.unlink()
    assert load(tmp_path).options.weights == "none"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    save(network(), folder, dataset="market1501", height=256, width=128)
    return folder


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True)


OLDER = "missing: the file is of an older version of ianet, so train the run again"
NEWER = "unknown: the file is of a newer version of ianet, so update ianet"
CURRENT = "this version of ianet computes with"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("", None, f"dataset, input, features, versions {OLDER}"),
        ("input.mean", None, f"mean {OLDER}"),
        ("options.neck", None, f"neck {OLDER}"),
        ("threshold", 0.5, f"threshold {NEWER}"),
        ("input.crop", "centre", f"crop {NEWER}"),
        ("input", [256, 128], "[256, 128] stands where height, width, channels, resize, "
                              "scale, mean, deviation are expected"),
        ("input.height", "256", "height is '256': it must be a whole number"),
        ("input.width", 0, "width is 0: it must be 1 pixel at least"),
        ("input.width", 8193, "width is 8193: it must be 1 pixel at least and 8192 at most"),
        ("input.channels", "BGR", f"channels is 'BGR': {CURRENT} 'RGB'"),
        ("input.resize", "bicubic", f"resize is 'bicubic': {CURRENT} 'bilinear, antialiased'"),
        ("input.mean", [0.5] * 3, f"mean is (0.5, 0.5, 0.5): {CURRENT} (0.485, 0.456, 0.406)"),
        ("features.normalized", True, f"normalized is True: {CURRENT} False"),
        ("features.size", 2048, "features.size is 2048, and the network of these options gives 5"),
        ("identities", 0, "identities is 0: it must be 1 at least"),
        ("identities", True, "identities is True: it must be a whole number"),
        ("options.backbone", "resnet51", "backbone is 'resnet51': choose one of resnet18"),
        ("versions", {"torch": 2}, "versions is {'torch': 2}: it must be a mapping to a text"),
    ],
)  # fmt: skip
def test_a_wrong_description_is_one_line(saved: Path, place: str, value: Any, message: str) -> None:
    """None takes an entry away; no place stands for the file of an older version."""
    path = saved / "network.json"
    content = json.loads(path.read_text())
    *parents, name = place.split(".")
    entry = content
    for parent in parents:
        entry = entry[parent]
    if not place:
        content = {"identities": 5, "options": content["options"]}
    elif value is None:
        del entry[name]
    else:
        entry[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}[^\n]*$"):
        load(saved)


def test_damaged_and_missing_files_of_a_run_are_named(saved: Path, tmp_path: Path) -> None:
    description, weights = saved / "network.json", saved / "weights.safetensors"
    content = weights.read_bytes()
    state = load_file(weights)
    del state["stem.0.weight"]
    state["classifier.weight"] = state["classifier.weight"][:3].clone()
    save_file(state, weights)
    message = (
        r"weights\.safetensors does not fit network\.json: 2 tensors are missing, unknown or of "
        r"another shape than expected, the first of them classifier\.weight$"
    )
    with pytest.raises(ValueError, match=message):
        load(saved)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged \([^\n]+\): train the"):
        load(saved)
    text = description.read_text()
    for damaged in (text[:30].encode(), b"", b"\xff\xfe{"):
        description.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"network\.json is damaged \([^\n]+\): train the run a"
        ):
            load(saved)
    weights.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"weights\.safetensors does not exist: .* is no tr"
    ):
        load(saved)


def test_no_denormal_is_saved(tmp_path: Path) -> None:
    module = network()
    with torch.no_grad():
        module.classifier.weight[0, :3] = torch.tensor([1e-40, -1e-40, 2e-38])
    save(module, tmp_path, dataset="own", height=64, width=32)
    weight = load_file(tmp_path / "weights.safetensors")["classifier.weight"][0, :3]
    assert weight.tolist() == [0, 0, pytest.approx(2e-38)]
    assert module.classifier.weight[0, 0] > 0


def test_googlenet_sees_the_same_input_when_loaded(tmp_path: Path) -> None:
    """With or without the weights that ask for it: torchvision's differs between the two."""
    save_file(torchvisions("googlenet").state_dict(), tmp_path / "initial.safetensors")
    module = network(backbone="googlenet", weights=str(tmp_path / "initial.safetensors")).eval()
    save(module, tmp_path, dataset="own", height=32, width=32)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(load(tmp_path).stem(images), module.stem(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet51"}, "backbone is 'resnet51': choose one of resnet18"),
        ({"block": "__init__"}, "there is no file ianet/blocks/__init__.py"),
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


@pytest.mark.parametrize("after", [{}, {"stage2": {}}])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet51"}, "backbone is 'resnet51': choose one of resnet18"),
        ({"block": "nonlocal"}, "block is 'nonlocal': there is no file ianet/blocks/nonlocal.py"),
        ({"block": "../relations"}, "there is no file"),
        ({"position": "before"}, "position is 'before': choose one of stage, block"),
    ],
)
def test_wrong_names_are_refused_before_a_network_is_built(
    options: dict[str, Any], message: str, after: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkOptions(after=after, **options)


def resnet18() -> dict[str, Tensor]:
    return torchvision.models.resnet18().state_dict()


def test_weights_with_and_without_a_classifier_and_counters_are_taken(tmp_path: Path) -> None:
    """Files written before PyTorch 0.4.1 have no counters."""
    state = resnet18()
    few = {
        key: value
        for key, value in state.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    torch.save(few, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        backbone = backbones.build("resnet18", str(tmp_path / name))
        last = backbone.stages["stage4"][-1].state_dict()["conv2.weight"]
        assert torch.equal(last, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {**state, "layer1.2.conv1.weight": torch.zeros(2)},  # as of ResNet-34
            "resnet18, which has 120 tensors beside its classifier: 1 tensors are unknown, the "
            r"first of them layer1\.2\.conv1\.weight$",
        ),
        (
            lambda state: {**state, "bn1.bias": torch.zeros(3)},
            r"1 tensors are of another shape, the first of them bn1\.bias of shape \(3,\) "
            r"instead of \(64,\)$",
        ),
        (
            lambda state: {**state, "bn1.bias": torch.full([64], torch.nan)},
            r"hold NaN or infinite values in 1 of 122 tensors, the first of them bn1\.bias: take",
        ),
        (
            lambda state: {"epoch": 60},
            "holds a dict of epoch, and no tensor under a name: expected",
        ),
        (lambda state: list(state.values()), "holds a list, and no tensor under a name: expected"),
        (lambda state: {}, "holds a dict, and no tensor under a name: expected is a whole"),
    ],
)
def test_weights_of_another_kind_are_told(
    change: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(resnet18()), path)
    with pytest.raises(ValueError, match=message) as info:
        backbones.build("resnet18", str(path))
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)


def test_files_that_are_no_weights_are_told(
    tmp_path: Path, make_pipe: Callable[[Path], None]
) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        backbones.build("resnet18", str(tmp_path / "weights.pth"))
    weights = tmp_path / "whole.pth"
    torch.save(resnet18(), weights)
    for name in ("cut.pth", "picture.pth", "picture.safetensors", "empty.pth"):
        content = weights.read_bytes()[:200_000] if name == "cut.pth" else b"\xff\xd8\xff\xe0 JFIF"
        path = tmp_path / name
        path.write_bytes(b"" if name == "empty.pth" else content)
        with pytest.raises(ValueError, match=r"cannot be read .*expected is a whole") as info:
            backbones.build("resnet18", str(path))
        assert f"{path}, which begins with {path.read_bytes()[:12]!r}" in str(info.value)
        assert "\n" not in str(info.value)
    make_pipe(tmp_path / "fifo.pth")
    for name, message in (("fifo.pth", "is no regular file"), (".", "is no model")):
        with pytest.raises(ValueError, match=rf"{message}.*: expected is a whole"):
            backbones.build("resnet18", str(tmp_path / name))


def test_a_damaged_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights("resnet18")["IMAGENET1K_V1"].url
    file = tmp_path / "hub/checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(resnet18(), file)
    for content in (file.read_bytes()[:200_000], b"", b"<html>"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"delete {re.escape(str(file))}, and the next start"):
            backbones.build("resnet18", "imagenet")


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("ianet.options, ianet.training.recipe", "torch"),
        ("ianet.packing, ianet.synthetic.archive", "torch"),
        ("ianet.network, ianet.features, ianet.training.fit", "torchvision"),
    ],
)
@pytest.mark.slow
def test_imports_are_no_slower_than_necessary(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; assert {absent!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_backbones_are_those_that_can_be_built() -> None:
    assert tuple(backbones.CONVERSIONS) == BACKBONES
    with pytest.raises(ValueError, match="backbone is 'resnet51': choose one of resnet18"):
        backbones.build("resnet51")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": print}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        network(weights=str(path))
