"""Weights of other projects and of models, and `ianet convert`."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import archive_folder
from safetensors.torch import load_file, save_file
from tiny_models import Outcome, tiny_model
from torch import Tensor, nn

import ianet
from ianet import weights
from ianet.conversion import convert
from ianet.model import save_model
from ianet.network import Network, describe
from ianet.options import NetworkOptions
from ianet.weights import NUMBERS, read_checkpoint, sort_weights

PEOPLE = 7


class Reference(nn.Module):
    """A project's network of ResNet-18, written from its description, apart from ours."""

    def __init__(self, project: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.project = project
        self.base = torchvision.models.resnet18(num_classes=PEOPLE)
        self.bottleneck = nn.BatchNorm1d(512)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.bias, std=0.1)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        base = self.base
        values = base.bn1(base.conv1(images))
        if self.project != "strong_baseline":
            values = values.relu()
        ceil = {"padding": 0, "ceil_mode": True} if self.project == "fastreid" else {"padding": 1}
        values = nn.functional.max_pool2d(values, 3, 2, **ceil)
        if self.project != "torchreid":
            base.layer4[0].conv1.stride = base.layer4[0].downsample[0].stride = (1, 1)
        for layer in (base.layer1, base.layer2, base.layer3, base.layer4):
            values = layer(values)
        pooled = values.mean((2, 3))
        return pooled if self.project == "torchreid" else self.bottleneck(pooled)

    def checkpoint(self) -> dict[str, Any]:
        """The file as the project writes it; torchreid also saves optimizer and scheduler."""
        base = {
            key: value for key, value in self.base.state_dict().items() if not key.startswith("fc.")
        }
        neck, fc = self.bottleneck.state_dict(), self.base.fc.state_dict()
        if self.project == "torchreid":
            classifier = {f"classifier.{key}": value for key, value in fc.items()}
            optimizer = torch.optim.Adam(self.parameters(), lr=3e-4)
            scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [20, 40])
            return {
                "state_dict": {**base, **classifier},
                "epoch": 60,
                "rank1": np.float32(0.87),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            }
        if self.project == "strong_baseline":
            return {
                **{f"module.base.{key}": value for key, value in base.items()},
                **{f"module.bottleneck.{key}": value for key, value in neck.items()},
                "module.classifier.weight": fc["weight"],
            }
        return {
            "model": {
                "pixel_mean": torch.ones(1, 3, 1, 1),
                "pixel_std": torch.ones(1, 3, 1, 1),
                **{f"backbone.{key}": value for key, value in base.items()},
                **{f"heads.bottleneck.0.{key}": value for key, value in neck.items()},
                "heads.weight": fc["weight"],
            },
            "iteration": 3,
        }


@pytest.mark.parametrize("project", ["torchreid", "strong_baseline", "fastreid"])
def test_a_converted_network_gives_the_features_of_its_project(
    project: str, tmp_path: Path
) -> None:
    reference, path = Reference(project), tmp_path / "model.pth.tar"
    torch.save(reference.checkpoint(), path)
    result = convert(path, "resnet18")
    assert (result.project, result.dropped) == (project, [])
    assert result.network.options.backbone == f"resnet18_{project}"
    assert result.network.options.neck == (project != "torchreid")
    assert result.matched == len(read_checkpoint(path).backbone) + 5 * (project != "torchreid")
    images = torch.randn(2, 3, 70, 34)
    with torch.no_grad():
        features, expected = result.network(images), reference(images)
    assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(result.network.classifier.weight, reference.base.fc.weight)
    plain = convert(path, "resnet18", project="torchvision").network
    with torch.no_grad():
        assert (plain(images) - expected).abs().max() > 1e-3 * expected.abs().max()


def old_file(content: object, tensor: Tensor) -> bytes:
    """What torch wrote before 1.6, as the published files of that time: pickles in a row, then the
    floats of the one tensor.
    """

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> tuple[object, ...] | None:
            if isinstance(value, torch.TypedStorage):
                return ("storage", torch.FloatStorage, "0", "cpu", tensor.numel(), None)
            return None

    file, version = io.BytesIO(), 1001
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": version, "little_endian": True, "type_sizes": sizes}
    for value in (0x1950A86A20F9469CFC6C, version, system):
        pickle.dump(value, file, protocol=2)
    Pickler(file, protocol=2).dump(content)
    pickle.dump(["0"], file, protocol=2)
    return file.getvalue() + struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes()


@pytest.mark.parametrize("number", [np.float32(0.87), np.float64(0.87), np.int64(3), np.True_])
@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_a_number_of_numpy_beside_the_weights_is_read(
    number: np.generic, package: str, tmp_path: Path
) -> None:
    """NumPy 1 and NumPy 2 write other names of the same function."""
    path, weight = tmp_path / "model.pth", torch.randn(3)
    content = old_file({"state_dict": {"conv1.weight": weight}, "rank1": number}, weight)
    [module] = {name for name in (b"numpy._core", b"numpy.core") if name in content}
    path.write_bytes(content.replace(module, package.encode()))
    assert torch.equal(read_checkpoint(path).backbone["conv1.weight"], weight)
    allowed = torch.serialization.get_safe_globals()
    assert not [each for each in NUMBERS if each in allowed]


def test_a_bias_of_the_neck_is_kept(tmp_path: Path) -> None:
    reference, path = Reference("strong_baseline"), tmp_path / "model.pth"
    with torch.no_grad():
        reference.bottleneck.bias.normal_()
    torch.save(reference.checkpoint(), path)
    network = convert(path, "resnet18").network
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert (network(images) - reference(images)).abs().max() < 1e-4
    assert not network.classifier.bias.any()


def test_names_tell_the_part_of_a_network() -> None:
    one = torch.ones(1)
    parts = sort_weights({"backbone.NL_2.0.g.weight": one, "heads.pool_layer.p": one})
    assert (parts.project, list(parts.backbone)) == ("fastreid", ["NL_2.0.g.weight"])
    assert list(parts.others) == ["heads.pool_layer.p"]
    parts = sort_weights({"conv1.weight": one, "fc.weight": one, "aux1.conv.conv.weight": one})
    assert (parts.project, list(parts.classifier), parts.others) == ("torchvision", ["weight"], {})
    parts = sort_weights({"features.0.0.weight": one, "classifier.1.bias": one})
    assert (parts.project, list(parts.classifier)) == ("torchvision", ["bias"])
    parts = sort_weights({"conv1.weight": one, "fc.0.weight": one, "classifier.weight": one})
    assert (parts.project, list(parts.others)) == ("torchreid", ["fc.0.weight"])


def change(project: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        content = Reference(project).checkpoint()
        edit(content.get("model", content.get("state_dict", content)))
        torch.save(content, path)

    return write


ODD = r"hold other values than dense floating-point numbers in 1 of \d+ tensors, the first of them "


def replace_bias(state: dict[str, Any], edit: Callable[[Tensor], Tensor]) -> None:
    name = max(name for name in state if name.endswith(".bias") and "layer" not in name)
    state[name] = edit(state[name])


@pytest.mark.filterwarnings("ignore:.*(quantize|torch.jit)")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            change("fastreid", lambda state: state.update({"heads.pool_layer.p": torch.ones(1)})),
            "is not of resnet18 with average pooling: 1 tensors have no place there, the first of "
            r"them heads\.pool_layer\.p, \(1,\)",
        ),
        (
            change("torchreid", lambda state: state.update({"fc.0.weight": torch.ones(512, 512)})),
            r"1 tensors have no place there, the first of them fc\.0\.weight, \(512, 512\)",
        ),
        (
            change("torchreid", lambda state: state.pop("layer3.0.conv1.weight")),
            r"do not fit resnet18_torchreid, which has \d+ tensors .* 1 tensors are missing, the "
            r"first of them layer3\.0\.conv1\.weight",
        ),
        (
            change("strong_baseline", lambda state: state.pop("module.bottleneck.running_var")),
            "has another neck than BatchNorm of 512 features: running_var is missing",
        ),
        (
            lambda path: torch.save({"epoch": 3}, path),
            r"holds a dict of epoch, and no tensor under a name",
        ),
        (lambda path: torch.save(torch.ones(3), path), "holds a Tensor, and no tensor under"),
        (
            lambda path: torch.save({"model": print}, path),
            r"cannot be read \(it holds Python objects",
        ),
        (
            change("torchreid", lambda state: state.update({"epochs": np.arange(3)})),
            r"cannot be read \(it holds Python objects",
        ),
        (
            change("torchreid", lambda state: state["classifier.bias"][1:2].fill_(torch.inf)),
            r"model\.pth hold NaN or infinite values in 1 of \d+ tensors, the first of them "
            r"classifier\.bias: take another file",
        ),
        (
            change("fastreid", lambda state: state["backbone.bn1.running_var"][2:3].fill_(-1)),
            r"hold negative variances in 1 of \d+ tensors, the first of them backbone\.bn1\.runn",
        ),
        (
            change("strong_baseline", lambda state: replace_bias(state, Tensor.to_sparse)),
            f"{ODD}bottleneck.bias: take another file",
        ),
        *(
            (change("torchreid", lambda state, edit=edit: replace_bias(state, edit)), f"{ODD}class")
            for edit in (
                *(Tensor.to_sparse, Tensor.bool, lambda bias: bias.to("meta")),
                lambda bias: torch.zeros(1).as_strided((10**6, 10**6), (0, 0)),
                *(lambda bias: bias.to(torch.int8), lambda bias: bias.to(torch.complex64)),
                lambda bias: bias.to(torch.int8).view(torch.float4_e2m1fn_x2),
                lambda bias: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8),
            )
        ),
        *(
            (
                lambda path, text=text: path.write_bytes(text),
                r"read \(it is no file of torch\.save\)",
            )
            for text in (b"<html>", b"version https://git-lfs.github.com/spec/v1\n")
        ),
        (
            lambda path: torch.jit.save(torch.jit.script(torch.nn.ReLU()), path),
            r"cannot be read \(it holds Python objects",
        ),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut"), r"cannot be read \(Pytorch"),
        (lambda path: path.write_bytes(b""), r"cannot be read"),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        convert(path, "resnet18")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(tmp_path: Path, kind: torch.dtype) -> None:
    reference, path = Reference("torchreid"), tmp_path / "model.pth"
    state = reference.checkpoint()["state_dict"]
    torch.save(
        {
            key: value.to(kind) if value.is_floating_point() else value
            for key, value in state.items()
        },
        path,
    )
    weight = convert(path, "resnet18").network.classifier.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, reference.base.fc.weight.to(kind).float())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--height", "1000000000"],
            "height is 1000000000: it must be 1 pixel at least and 8192 at",
        ),
        (["-o", "dangling"], "dangling exists: name another folder, or move this one away"),
        (["-o", "file/model"], "file/model cannot be written, as "),
        (["-o", "tiny/sub"], "tiny/sub is in the folder of a model, "),
    ],
)
def test_a_model_that_cannot_be_made_is_refused_before_the_work(
    words: list[str],
    message: str,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(Path("tiny"))
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    size = ("--height", "64", "--width", "32")
    outcome = run("convert", "none.pth", "--backbone", "resnet18", *size, "-o", "new", *words)
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(f"error: {message}")
    assert outcome.errors.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "tiny"]


def network(**options: Any) -> Network:
    torch.manual_seed(0)
    return Network(5, NetworkOptions(backbone="mobilenet_v2", **options))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip", "safetensors"])
def test_a_network_starts_from_a_model_without_its_head(tmp_path: Path, kind: str) -> None:
    path = tiny_model(tmp_path / "tiny", seed=1)
    source = ianet.load(path).network.state_dict()
    weights = {"folder": path, "zip": None, "safetensors": path / "model.safetensors"}[kind]
    weights = weights or archive_folder(path, "zip")
    started = network(weights=str(weights), after={"stage2": {}}, neck=True)
    state = started.state_dict()
    body = [name for name in source if name.startswith(("stem.", "stages.", "blocks."))]
    assert len(body) == len(source) - 2
    assert all(torch.equal(state[name], source[name]) for name in body)
    assert not torch.equal(state["classifier.weight"], source["classifier.weight"])
    # A block that the model lacks is fresh, as without weights.
    other = network(weights=str(weights), after={"stage3": {}}).state_dict()
    fresh = network(after={"stage3": {}}).state_dict()
    for name in other:
        if name.startswith("blocks."):
            assert torch.equal(other[name], fresh[name])
    with pytest.raises(ValueError, match=r"do not fit resnet18.*: \d+ tensors are missing"):
        Network(5, NetworkOptions(backbone="resnet18", weights=str(weights)))


def test_a_weight_of_a_block_that_is_not_finite_is_told(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny", seed=1) / "model.safetensors"
    state = load_file(path)
    name = max(name for name in state if name.startswith("blocks.stage2."))
    state[name].view(-1)[-1] = torch.nan
    save_file(state, path)
    for source in (path, path.parent, archive_folder(path.parent, "zip")):
        message = (
            f"the weights {source} hold NaN or infinite values in 1 of {len(state)} tensors, "
            f"the first of them {name}: take another file"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            network(weights=str(source), after={"stage2": {}})


def test_a_model_that_decompresses_to_too_much_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model(tmp_path / "tiny")
    size = (path / "model.safetensors").stat().st_size
    archive = archive_folder(path, "zip")
    monkeypatch.setattr(weights, "MOST_BYTES", size)
    assert len(read_checkpoint(archive).backbone) > 100
    monkeypatch.setattr(weights, "MOST_BYTES", size - 1)
    with pytest.raises(ValueError, match=rf"model\.safetensors has {size:,} bytes: unpack it"):
        read_checkpoint(archive)


def test_a_pipe_in_the_folder_of_a_model_is_told(
    tmp_path: Path, make_pipe: Callable[[Path], None]
) -> None:
    make_pipe(tmp_path / "model.safetensors")
    message = f"the weights folder {tmp_path} is no model (model.safetensors in it is missing or no"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_checkpoint(tmp_path)


def test_a_network_starts_from_a_checkpoint_of_dataparallel(tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v2().state_dict()
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.safetensors")
    started = network(weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(started.stem[0][0].weight, state["features.0.0.weight"])


def test_the_command_makes_a_model(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    reference, path = Reference("fastreid"), tmp_path / "model.pth"
    torch.save(reference.checkpoint(), path)
    arguments = ["convert", path, "--backbone", "resnet18", "--height", "64", "--width", "32"]
    outcome = run(*arguments, "-o", tmp_path / "bot", "--terms", "Research only.", "--json")
    answer = json.loads(outcome.output)
    assert (answer["project"], answer["backbone"]) == ("fastreid", "resnet18_fastreid")
    assert (answer["neck"], answer["size"], answer["dropped"]) == (True, 512, [])
    assert answer["note"].startswith("fast-reid resizes by a bicubic filter")
    model = ianet.load(tmp_path / "bot")
    assert (model.description.name, model.description.identities) == ("bot", PEOPLE)
    assert (model.description.dataset, model.description.terms) == ("unknown", "Research only.")
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert (model.network(images) - reference(images)).abs().max() < 1e-4
    outcome = run(*arguments, "-o", tmp_path / "bot")
    assert outcome == (
        2, "", f"error: {tmp_path}/bot exists: name another folder, or move this one away\n"
    )  # fmt: skip
    outcome = run("convert", tmp_path / "none.pth", *arguments[2:], "-o", tmp_path / "new")
    assert outcome.errors.startswith(f"error: the weights file {tmp_path}/none.pth does not exist")
    arguments[3] = "vit"
    outcome = run(*arguments, "-o", tmp_path / "new")
    assert outcome.errors.startswith("error: backbone is 'vit': choose one of resnet18, resnet34")
    assert not (tmp_path / "new").exists()


def test_a_model_is_not_converted(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny")
    with pytest.raises(ValueError, match="tiny is a network of ianet: its folder says all"):
        convert(path, "mobilenet_v2")


def test_a_model_remembers_no_path_of_its_checkpoint(tmp_path: Path) -> None:
    torch.save(Reference("torchreid").checkpoint(), tmp_path / "a.pth")
    network = convert(tmp_path / "a.pth", "resnet18").network
    description = describe(network, dataset="x", height=64, width=32)
    save_model(network, description, tmp_path / "m", name="m", terms="")
    shutil.move(tmp_path / "a.pth", tmp_path / "b.pth")
    assert str(tmp_path) not in (tmp_path / "m/config.json").read_text()
    assert ianet.load(tmp_path / "m").network.options.weights == "none"
