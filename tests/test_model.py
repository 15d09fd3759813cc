"""A model's folder, and the features that a model gives."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import noise, packed, written
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import SIZE, TERMS, Outcome, tiny_model, tiny_network

import ianet
from ianet import images
from ianet.comparison import Interval
from ianet.features import extract
from ianet.model import Model, save_model, write_model
from ianet.model_description import ModelScores
from ianet.network import Network, describe, save
from ianet.options import NetworkOptions
from ianet.packing import pack
from ianet.pictures import find_pictures, open_picture

CPU = torch.device("cpu")
NAMES = ["a/0001_c1s1_1.jpg", "a/0001_c2s1_1.jpg", "b/0002_c1s1_1.jpg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return ianet.load(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes and formats."""
    root = written(tmp_path_factory.mktemp("data") / "photos", NAMES)
    (root / "c").mkdir()
    (root / "c/large.jpg").write_bytes(noise(7, 200, 90))
    grey = np.random.default_rng(8).integers(0, 256, (70, 41), dtype=np.uint8)
    Image.fromarray(grey).save(root / "c/grey.png")
    return root


def expected(model: Model, paths: list[Path], target: Path) -> np.ndarray:
    """What the pipeline computes: packed images, then features."""
    for _ in pack(open_picture, [str(path) for path in paths], SIZE, target):
        pass
    return extract(model.network, images.load(target), device=CPU).numpy()


def test_features_are_those_of_the_pipeline(model: Model, photos: Path, tmp_path: Path) -> None:
    table = model.embed(photos, batch=2)
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    assert table.paths == [str(path) for path in paths]
    assert table.features.shape == (5, 1280)
    assert table.features.dtype == np.float32
    features = expected(model, paths, tmp_path / "packed.npy")
    assert np.abs(table.features - features).max() <= 1e-6 * np.abs(features).max()
    assert np.abs(features).max() > 0.01


def test_every_kind_of_image_gives_the_same_features(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    path = photos / "c/large.jpg"
    picture = Image.open(path)
    array = np.asarray(picture)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{os.path.relpath(path, tmp_path)}\n\n{path}\n")
    kinds: list[Any] = [
        str(path),
        path.read_bytes(),
        picture,
        array,
        torch.from_numpy(array.copy()),
        np.stack([array, array]),
        torch.from_numpy(np.stack([array])),
        listed,
    ]
    table = model.embed(kinds)
    assert len(table) == 10
    assert np.ptp(table.features, axis=0).max() <= 1e-6
    assert table.paths[:2] == [str(path), "image 1"]
    assert table.paths[5:8] == ["image 5", "image 6", "image 7"]


def test_a_series_or_an_array_of_paths_is_several_paths(photos: Path) -> None:
    paths = [str(photos / name) for name in NAMES]
    for several in (pd.Series(paths), pd.Series(paths, dtype=object), np.array(paths)):
        pictures = find_pictures(several)
        assert [picture.path for picture in pictures] == paths
        assert [picture.person for picture in pictures] == ["0001", "0001", "0002"]
    contents = np.array([Path(path).read_bytes() for path in paths], dtype=object)
    assert [picture.open().size for picture in find_pictures(contents)] == [
        picture.open().size for picture in pictures
    ]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_a_folder(model: Model, photos: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    archive = packed(tmp_path / "photos", kind)
    table = model.embed(archive)
    assert table.paths == [
        path.replace(str(photos), f"{archive}/photos") for path in model.embed(photos).paths
    ]
    assert np.array_equal(table.features, model.embed(photos).features)
    assert np.array_equal(
        np.asarray(open_picture(table.paths[-1])),
        np.asarray(open_picture(str(photos / "c/large.jpg"))),
    )


def test_flip_averages_with_the_mirrored_picture(model: Model, photos: Path) -> None:
    array = np.asarray(Image.open(photos / "c/large.jpg").resize(SIZE[::-1]))
    both = model.embed([array, array[:, ::-1]]).features
    flipped = model.embed(array, flip=True).features
    assert np.abs(flipped - both.mean(axis=0)).max() <= 1e-6
    assert np.abs(both[0] - both[1]).max() > 1e-4


def test_bfloat16_is_near_float32(model: Model, photos: Path) -> None:
    exact = model.embed(photos).features
    reduced = model.embed(photos, precision="bfloat16").features
    error = np.abs(reduced - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.3
    assert reduced.dtype == np.float32


def test_bad_pictures_are_named_and_may_be_skipped(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    good, bad, missing = photos / "c/grey.png", tmp_path / "bad.jpg", tmp_path / "none.jpg"
    bad.write_bytes(noise(1)[:500])
    listed = tmp_path / "list.txt"
    listed.write_text(f"{good}\n{bad}\n{missing}\n")
    mixed = [listed, np.zeros((4, 4, 3), np.float32), np.zeros((3, 8, 8), np.uint8), good]
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be decoded \(.+\): replace the picture"):
        model.embed(mixed)
    for batch in (1, 2, 64):
        table = model.embed(mixed, skip_bad=True, batch=batch)
        assert table.paths == [str(good), str(good)]
        assert list(table.skipped) == [str(bad), str(missing), "image 1", "image 2"]
        assert table.skipped[str(missing)] == "No such file or directory"
        assert table.skipped["image 1"] == (
            "it is float32 of shape (4, 4, 3), not uint8 from 0 to 255 of shape (height, width, 3) "
            "in RGB"
        )
        assert "uint8 of shape (3, 8, 8)" in table.skipped["image 2"]
        assert np.abs(table.features - model.embed(good).features).max() <= 1e-6
    assert model.embed(bad, skip_bad=True).features.shape == (0, 1280)


@pytest.fixture
def pipes(tmp_path: Path, make_pipe: Callable[[Path], None]) -> Path:
    """Named pipes, into which nobody writes, under names of pictures, lists and archives."""
    for name in ("photos/pipe.jpg", "pipe.png", "pipe.txt", "pipe.csv", "pipe.zip", "pipe.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_pipe(tmp_path / name)
    (tmp_path / "list.txt").write_text("pipe.png\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "pipe"),
    [
        ("pipe.png", "pipe.png"),
        ("photos", "photos/pipe.jpg"),
        ("list.txt", "pipe.png"),
        ("pipe.parquet", "pipe.parquet"),
    ],
)
def test_a_pipe_is_no_picture(model: Model, pipes: Path, name: str, pipe: str) -> None:
    reason = f"{pipes / pipe} is no regular file: put the file itself there"
    with pytest.raises(ValueError, match=re.escape(f"{pipes / pipe} cannot be decoded ({reason})")):
        model.embed(pipes / name)
    assert model.embed(pipes / name, skip_bad=True).skipped == {str(pipes / pipe): reason}


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.csv", "pipe.zip"])
def test_a_pipe_is_no_list_and_no_archive(model: Model, pipes: Path, name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{pipes / name} is no regular file: put the")):
        model.embed(pipes / name, skip_bad=True)


@pytest.mark.parametrize("command", ["embed", "search", "compare", "attention"])
@pytest.mark.parametrize("name", ["pipe.png", "pipe.csv", "pipe.parquet"])
def test_no_command_waits_for_a_pipe(
    folder: Path, pipes: Path, command: str, name: str, run: Callable[..., Outcome]
) -> None:
    pipe, output = pipes / name, pipes / "output"
    options = {
        "embed": [pipe, "-o", f"{output}.npz"],
        "search": [pipe, pipe, "-o", f"{output}.csv"],
        "compare": [pipe, pipe],
        "attention": [pipe, "--point", "0.5,0.5", "-o", f"{output}.png"],
    }[command]
    outcome = run(command, folder, *options)
    assert (outcome.code, outcome.output) == (2, "")
    assert f"{pipe} is no regular file: put the file itself there" in outcome.errors
    assert outcome.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ("nowhere", FileNotFoundError, "nowhere does not exist. Expected: a picture, a folder"),
        ([], ValueError, "there is no picture: give a picture, a folder or"),
        (7, TypeError, "an image is of type int: give a path, bytes"),
    ],
)
def test_no_pictures(model: Model, images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model.embed(images)


def test_wrong_options(model: Model, photos: Path) -> None:
    with pytest.raises(ValueError, match="batch is 0: it must be 1 at least"):
        model.embed(photos, batch=0)
    with pytest.raises(ValueError, match=r"device 'gpu' cannot be used \(.+\): take auto or cpu"):
        model.embed(photos, device="gpu")
    for name in ("meta", "hpu"):
        with pytest.raises(
            ValueError, match=rf"^device '{name}' cannot be used \(.+\): take"
        ) as error:
            model.embed(photos, device=name)
        assert "\n" not in str(error.value)


def test_a_gpu_without_memory_for_a_batch_is_told(
    folder: Path,
    photos: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_out(*arguments: object, **options: object) -> Iterator[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        yield

    monkeypatch.setattr("ianet.model.extract_batches", run_out)
    outcome = run("embed", folder, photos, "-o", tmp_path / "f.csv", "--batch", "512")
    message = "error: the GPU has no memory for 512 pictures at a time: lower --batch\n"
    assert (outcome.code, outcome.errors) == (2, message)


def test_persons_and_cameras(model: Model, photos: Path, tmp_path: Path) -> None:
    table = model.embed(photos / "a")
    assert (table.persons, table.cameras) == (["0001", "0001"], ["1", "2"])
    table = model.embed(photos, labels="folders")
    assert table.persons == ["a", "a", "b", "c", "c"]
    assert table.cameras == ["0001", "0001", "0002", "", ""]
    assert model.embed(photos / "b", labels="none").persons == [""]
    listed = tmp_path / "list.csv"
    listed.write_text(f"person,path,camera\n007, {photos}/b/0002_c1s1_1.jpg,hall\n")
    table = model.embed(listed)
    assert (table.persons, table.cameras) == (["007"], ["hall"])


def test_a_folder_is_a_person_only_below_what_is_given(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "b", tmp_path / "anna")
    listed = tmp_path / "list.txt"
    listed.write_text("anna/0002_c1s1_1.jpg\n")
    archive = packed(tmp_path / "anna", "zip")
    file = tmp_path / "anna/0002_c1s1_1.jpg"
    for given, person in (
        *((tmp_path, "anna"), (listed, "anna"), (archive, "anna")),
        *((tmp_path / "anna", ""), (file, ""), (os.path.relpath(file), "")),
    ):
        picture, *_ = find_pictures(given, labels="folders")
        assert (picture.person, picture.camera) == (person, "0002"), given


def test_the_folder_says_what_a_user_needs(folder: Path, model: Model) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["input"] | {"mean": None, "deviation": None} == {
        "height": 64,
        "width": 32,
        "channels": "RGB",
        "resize": "bilinear, antialiased",
        "scale": [0.0, 1.0],
        "mean": None,
        "deviation": None,
    }
    assert config["features"] == {"size": 1280, "distance": "cosine", "normalized": False}
    assert (config["name"], config["dataset"], config["terms"]) == ("tiny", "synthetic", TERMS)
    assert (config["scores"], config["commit"], config["calibration"]) == ([], "", None)
    card = (folder / "README.md").read_text()
    assert f"> {TERMS}" in card
    assert f"sha256:{model.identity.digest}" in card
    assert "to 64x32 (height x width), bilinear, antialiased" in card
    assert "No score is known." in card


def test_scores_are_kept_and_written_on_the_card(tmp_path: Path) -> None:
    network = tiny_network()
    scores = ModelScores(
        "market1501", 3368, 750, Interval(0.944, 0.936, 0.951), Interval(0.83, 0.82, 0.84), None
    )
    description = describe(network, dataset="market1501", height=64, width=32)
    target = tmp_path / "model"
    save_model(
        network,
        description,
        target,
        name="m",
        terms="Research only.",
        scores=(scores,),
        commit="1a2b",
    )
    loaded = ianet.load(target).description
    assert loaded.scores == (scores,)
    assert loaded.commit == "1a2b"
    card = (target / "README.md").read_text()
    assert "| market1501 | 94.4 (93.6 to 95.1) | 83.0 (82.0 to 84.0) | – | 750 | 3,368 |" in card
    assert "| commit | 1a2b |" in card
    with pytest.raises(FileExistsError, match="model exists: name another folder"):
        save_model(network, description, target, name="m", terms="")
    with pytest.raises(ValueError, match="name is 'a b': give a name without spaces"):
        save_model(network, description, tmp_path / "other", name="a b", terms="")
    assert not (tmp_path / "other").exists()


def test_the_card_shows_texts_as_they_are(tmp_path: Path) -> None:
    evil = '<script>alert("a")</script> [b](http://c) `f` | *d*\n\n# Other\n[e]: http://g'
    shown = r'\<script\>alert("a")\</script\> [b]\(http://c) \`f\` \| \*d\* \# Other [e]\: http://g'
    score = Interval(0.9, 0.8, 1)
    description = describe(tiny_network(), dataset=evil, height=64, width=32)
    target = tmp_path / "model"
    save_model(
        tiny_network(),
        description,
        target,
        name="<b>_name_</b>",
        terms=evil,
        scores=(ModelScores(evil, 3, 2, score, None, None),),
        commit="`a|b`",
    )
    card = (target / "README.md").read_text()
    assert card.startswith("# \\<b\\>\\_name\\_\\</b\\>\n")
    assert f"Trained on {shown}, 5 people. Its terms:\n\n> {shown}\n\n" in card
    assert f"| {shown} | 90.0 (80.0 to 100.0) | – | – | 2 | 3 |\n" in card
    assert "| commit | \\`a\\|b\\` |" in card
    assert ianet.load(target).description.terms == evil


def test_a_score_lies_within_its_interval_and_within_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"0\.5 is not between 0\.6 and 0\.7"):
        Interval(0.5, 0.6, 0.7)
    with pytest.raises(ValueError, match=r"a score of 0\.9 to 1\.1: it must lie in 0 to 1"):
        ModelScores("market1501", 5, 2, Interval(1, 0.9, 1.1), None, None)


def test_the_name_and_the_scores_leave_the_digest(model: Model, tmp_path: Path) -> None:
    description = replace(model.description, name="other", commit="abc")
    write_model(model.network, description, tmp_path / "copy")
    copy = ianet.load(tmp_path / "copy")
    assert copy.identity == ("other", model.identity.digest)
    assert len(model.identity.digest) == 64
    other = ianet.load(tiny_model(tmp_path / "seed", seed=1))
    assert other.identity.digest != model.identity.digest


def test_files_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = tiny_model(tmp_path / "model")
        save(tiny_network(), tmp_path, dataset="own", height=64, width=32)
    finally:
        os.umask(before)
    files = [*folder.iterdir(), tmp_path / "weights.safetensors"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_a_zip_and_a_tar_are_loaded_as_the_folder(
    folder: Path, model: Model, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    features = model.embed(photos / "b").features
    for kind in ("zip", "tar.gz"):
        loaded = ianet.load(packed(tmp_path / "tiny", kind))
        assert loaded.identity == model.identity
        assert np.array_equal(loaded.embed(photos / "b").features, features)


Change = Callable[[Path], object]


def edit(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def edit_options(**values: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(options=config["options"] | values)(folder)

    return change


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return rewrite


def edit_input(**values: int) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(input=config["input"] | values)(folder)

    return change


VARIANCE = "stem.0.1.running_var"


def bias_of(state: dict[str, torch.Tensor], kind: torch.dtype) -> dict[str, torch.Tensor]:
    return {"classifier.bias": state["classifier.bias"].to(kind)}


def link_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("nowhere")


def cut(name: str) -> Change:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "holds no config.json but README.md, mo",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors. Exp"),
        (cut("config.json"), r"config.json is damaged \(.+\): fetch or make the model again"),
        (cut("model.safetensors"), r"model.safetensors is damaged \(.+\): fetch or make the mo"),
        (edit(crop=1), "config.json: crop unknown: the file is of a newer version of ianet"),
        (edit(scores=[{"dataset": 1}]), "config.json: queries, identities, .* missing: .* older"),
        (
            edit(identities=10**13),
            "the file has fewer numbers than a classifier of 10,000,000,000,000 identities",
        ),
        (
            edit_options(weights="imagenet"),
            "config.json: options.weights is 'imagenet': a trained network needs none",
        ),
        (edit(identities=2**70), "the file has fewer numbers than a classifier of 1,180,591,620"),
        (
            edit_input(height=10**9),
            "config.json: height is 1000000000: it must be 1 pixel at least",
        ),
        (edit_input(height=10**5, width=10**5), "height is 100000: .* and 8192 at most$"),
        (edit_input(width=2**63), "config.json: width is 9223372036854775808: it must be 1 pixel"),
        (
            lambda folder: (folder / "config.json").write_text("[" * 10**5 + "]" * 10**5),
            r"config.json is damaged \(maximum recursion depth .*\): fetch or make the model again",
        ),
        (
            edit_options(block="sca_cnn", options={"common_space": 10**13}),
            r"config.json asks for a network that cannot be built \(.+\): fetch or make the model",
        ),
        (edit(identities=7), r"model.safetensors does not fit config.json: 2 tensors are missing"),
        (
            edit_weights(lambda state: state["classifier.bias"].fill_(torch.nan)),
            "model.safetensors holds NaN or infinite values in 1 of .* tensors, .* classifier.bias",
        ),
        (
            edit_weights(lambda state: state[VARIANCE][1:2].fill_(-0.5)),
            rf"model.safetensors holds negative variances in 1 of \d+ tensors, .* {VARIANCE}: f",
        ),
        *(
            (
                edit_weights(lambda state, kind=kind: state.update(bias_of(state, kind))),
                "holds other values than dense floating-point numbers in 1 of .* classifier.bias:",
            )
            for kind in (torch.int8, torch.bool, torch.complex64)
        ),
        (
            link_config,
            r"model/config.json is damaged \(.*No such file.*\): fetch or make the model",
        ),
        (
            lambda folder: os.truncate(folder / "config.json", 2**20 + 1),
            "config.json has 1,048,577 bytes, and such a file has 1,048,576 at most",
        ),
        (
            lambda folder: os.truncate(folder / "model.safetensors", 2**40),
            "model.safetensors has 1,099,511,627,776 bytes, and such a file has 1,073,741,824",
        ),
        (
            lambda folder: shutil.copytree(folder, folder / "copy"),
            r"holds a config.json in \. and copy: name one folder",
        ),
    ],
)
def test_what_is_no_model_is_one_line(
    folder: Path, tmp_path: Path, change: Change, message: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    change(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        ianet.load(copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_zip_that_points_outside_is_refused(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.zip"
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(folder / "config.json", "../config.json")
    with pytest.raises(ValueError, match=r"names \.\./config\.json, which points outside"):
        ianet.load(target)
    target.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"model\.zip is damaged or not a zip"):
        ianet.load(target)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path}/none does not exist. Ex")):
        ianet.load(tmp_path / "none")


def test_a_run_is_no_model(tmp_path: Path) -> None:
    save(tiny_network(), tmp_path, dataset="own", height=64, width=32)
    with pytest.raises(ValueError, match=r"is a trained run and no model: .* in models/$"):
        ianet.load(tmp_path)


def test_a_damaged_zip_is_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    path = packed(tmp_path / "tiny", "zip")
    content = bytearray(path.read_bytes())
    place = content.index(b"model.safetensors") + 5000
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged \(Bad CRC"):
        ianet.load(path)


def test_ianet_is_light_and_has_no_other_name_than_load() -> None:
    code = "import sys, ianet; assert 'torch' not in sys.modules; ianet.embed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("AttributeError: module 'ianet' has no attribute 'embed'\n")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_right(
    folder: Path, model: Model, tmp_path: Path, kind: torch.dtype
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    edit_weights(lambda state: state.update(bias_of(state, kind)))(tmp_path / "model")
    bias = ianet.load(tmp_path / "model").network.classifier.bias
    assert bias.dtype == torch.float32
    assert torch.equal(bias, model.network.classifier.bias.to(kind).float())


@pytest.mark.parametrize("scale", [1e30, 3e38])
def test_features_that_cannot_be_compared_are_refused(
    photos: Path, tmp_path: Path, run: Callable[..., Outcome], scale: float
) -> None:
    """The weights are finite, and the features or their lengths are not."""
    network = Network(5, NetworkOptions(backbone="mobilenet_v2", neck=True))
    with torch.no_grad():
        network.neck.weight.fill_(scale)
    description = describe(network, dataset="synthetic", height=64, width=32)
    save_model(network, description, tmp_path / "model", name="tiny", terms=TERMS)
    picture = photos / "c/grey.png"
    message = (
        f"the features of {picture} are not finite or too large: the weights of the model tiny are "
        "damaged, so fetch or make the model again"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ianet.load(tmp_path / "model").embed([picture])
    output = tmp_path / "features.parquet"
    outcome = run("embed", tmp_path / "model", picture, "-o", output)
    assert outcome == (2, "", f"error: {message}\n")
    assert not output.exists()


def test_a_model_is_not_made_in_the_folder_of_another(
    folder: Path, model: Model, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    for place in ("model/sub", "model/a/b", "link/sub"):
        message = rf" is in the folder of a model, {re.escape(str(tmp_path))}/model, and would"
        with pytest.raises(ValueError, match=message):
            write_model(model.network, model.description, tmp_path / place)
    assert ianet.load(tmp_path / "model").identity == model.identity
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="dangling exists: name another folder, or move"):
        write_model(model.network, model.description, tmp_path / "dangling")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written, as .*/file is no folder: name ano"):
        write_model(model.network, model.description, tmp_path / "file/sub")
