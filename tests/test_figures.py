"""Figures 4 and 8: what is drawn is what the block computes, and the same bytes each time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ianet import drawing, receptive, relations
from ianet.blocks.ia import ARRANGEMENTS, ChannelIA, SpatialIA
from ianet.images import normalize
from ianet.maps import HeatMap, PersonMaps, draw_maps
from ianet.network import Network, save
from ianet.options import NetworkOptions
from pipeline.config.experiments import RelationFigure, read_experiments
from pipeline.config.settings import Settings, SettingsError, load
from pipeline.plan.dvc_yaml import build_pipeline
from pipeline.plan.plan import Plan, unique_runs
from pipeline.plan.runs import Run
from pipeline.report.relation_maps import compute_maps, draw_people
from pipeline.stages import figure as stage

ROOT = Path(__file__).parents[1]
GOLDEN = np.load(Path(__file__).parent / "golden" / "relations.npz")
RUN = Run("synthetic", "stage23", "quick", 0)


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def trained(**options: Any) -> Network:
    """Random, but with blocks that are not the identity, as after training."""
    torch.manual_seed(0)
    after = {"stage2": {"sigma": (10, 20)}, "stage3": {"sigma": (5, 10)}}
    network = Network(3, NetworkOptions(**{"backbone": "resnet18", "after": after, **options}))
    for module in network.modules():
        if isinstance(module, SpatialIA | ChannelIA):
            torch.nn.init.uniform_(module.norm.weight)
    return network.eval()


def read_figure(name: str, **changes: Any) -> RelationFigure:
    content = yaml.safe_load(Path(f"experiments/{name}.yaml").read_text())
    return RelationFigure.model_validate({**content, "size": (64, 32), **changes})


def noise(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 64, 32, 3), dtype=torch.uint8, generator=generator)


def test_intermediates_are_those_of_the_forward_pass() -> None:
    network, images = trained(), normalize(noise(2))
    maps = dict(network.intermediates(images))
    assert [name for name in maps if name.startswith("blocks")] == [
        "blocks.stage2.1",
        "blocks.stage3.1",
    ]
    for name, features in maps.items():
        network.get_submodule(name)  # each is named after the module that gave it
        assert features.shape[0] == 2
    block = network.get_submodule("blocks.stage3.1")
    torch.testing.assert_close(block(maps["stages.stage3.1"]), maps["blocks.stage3.1"])
    torch.testing.assert_close(network(images), maps["stages.stage4.1"].mean(dim=(2, 3)))


@pytest.mark.parametrize("arrangement", [name for name in ARRANGEMENTS if name != "cia"])
def test_a_view_of_a_block_is_what_sia_takes_and_cia_gives(arrangement: str) -> None:
    network = trained(options={"arrangement": arrangement}).double()
    arguments, outputs = {}, {}
    block = network.get_submodule("blocks.stage2.1")
    block.sia.register_forward_pre_hook(lambda module, inputs: arguments.update(sia=inputs[0]))
    block.sia.norm.register_forward_pre_hook(lambda module, inputs: arguments.update(sum=inputs[0]))
    if block.cia is not None:
        block.cia.register_forward_hook(lambda module, inputs, output: outputs.update(cia=output))
    with torch.no_grad():
        maps = dict(network.intermediates(normalize(noise(2)).double()))
    expected_in = arguments.get("sia", maps["stages.stage2.1"])  # parallel calls no forward
    aggregated = arguments["sum"].clone()
    expected_out = outputs.get("cia")
    view = receptive.view_block(network, "stage2", noise(2))
    torch.testing.assert_close(view.features, expected_in)
    if expected_out is not None:
        torch.testing.assert_close(view.channels, expected_out)
    elif arrangement == "sia":
        assert view.channels is None
    else:
        torch.testing.assert_close(view.channels, block.cia(maps["stages.stage2.1"]))
    # Row i of the relation map gathers position i: it is the one that the block really used.
    relation = view.relation()
    gathered = torch.einsum("byxvu,bcvu->bcyx", relation, view.features)
    torch.testing.assert_close(gathered, aggregated)


def test_receptive_fields_are_rows_of_the_golden_relations() -> None:
    case = GOLDEN.files[0].split("/")[0]
    features = torch.from_numpy(GOLDEN[f"{case}/features"])[None]
    _, channels, height, width = features.shape
    view = receptive.BlockView(SpatialIA(channels, sigma=(1, 2)), features, None)
    for scale, name in ((1.0, "1"), ("rsqrt_channels", "rsqrtC")):
        compared = {f"{case}/scale={name}/multi_context/prod": view.relation(
            relation="appearance", scale=scale
        )}  # fmt: skip
        for context in (1, 2, 3, 5):
            key = f"{case}/scale={name}/appearance/K={context}"
            if key in GOLDEN.files:
                compared[key] = view.relation(
                    relation="appearance", contexts=(context,), scale=scale
                )
        assert len(compared) > 2
        for key, relation in compared.items():
            for y, x in np.ndindex(height, width):
                row = GOLDEN[key][y * width + x].reshape(height, width)
                np.testing.assert_allclose(relation[0, y, x], row, atol=1e-10)


def test_the_maps_of_a_figure_are_those_of_its_points() -> None:
    figure = read_figure("figure8", channels=[5, 128])
    network = trained().double()
    people = draw_people(figure, seed=0)
    rows = compute_maps(figure, network, people)
    images = torch.from_numpy(np.stack([person.image for person in people]))
    maps = dict(network.intermediates(normalize(images).double()))
    entering = maps["stages.stage2.1"]
    printed = network.get_submodule("blocks.stage2.1").sia.relation(entering)
    appearance = relations.multi_context_relation(
        entering, (1, 2, 3), scale="rsqrt_channels", normalization="renormalized"
    )
    location = relations.location_relation(8, 4, (10, 20))
    renormalised = relations.semantic_relation(appearance, location, normalization="renormalized")
    assert [row.label for row in rows] == ["(a)", "(b)", "(c)", "(d)"]
    for number, row in enumerate(rows):
        assert [len(line) for line in row.lines.values()] == [5, 5]
        for label, relation in zip(row.lines, (printed, renormalised), strict=True):
            for heat_map, (x, y) in zip(row.lines[label], row.points, strict=True):
                position = int(8 * y) * 4 + int(4 * x)
                expected = relation[number, position].detach().view(8, 4).numpy()
                np.testing.assert_allclose(heat_map.values, expected, rtol=1e-9)
                assert heat_map.point == (x, y)
        for heat_map, channel in zip(row.channels, (5, 128), strict=True):
            channel_map = maps["blocks.stage2.1"][number, channel - 1].detach().numpy()
            np.testing.assert_allclose(heat_map.values, channel_map)  # CIA comes last


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure4", "figure8"])
def test_same_bytes_each_time(name: str) -> None:
    figure = read_figure(name)
    people = draw_people(figure, seed=0)
    first, second = (
        drawing.svg(draw_maps(compute_maps(figure, trained(), people), "Title", "Caption"))
        for _ in range(2)
    )
    assert first == second
    assert "<dc:date>" not in first


def test_numbers_under_the_maps() -> None:
    flat = np.full((4, 2), 0.125)
    flat[3, 1] *= 1 + 2e-6
    near = HeatMap(flat, "near", (0.9, 0.9))
    steep = HeatMap(np.array([[1e-9, 1e-5], [1e-5, 1.0]]), "steep", (0.9, 0.9), True)
    far = np.full((4, 2), 0.125)
    far[3] = 0.125 * (1 + np.array([-2.5e-4, 1.5e-3]))
    less = HeatMap(far, "less", (0.9, 0.9))
    channel = HeatMap(np.array([[-1.5, 2.25], [0.0, 0.0]]), "channel")
    image = np.zeros((4, 2, 3), np.uint8)
    row = PersonMaps("label", image, [(0.9, 0.9)], {"line": [near, less, steep]}, [channel])
    figure = draw_maps([row], "Title", "Caption")
    numbers = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert numbers == ["+0", "+2 ppm", "-250", "+1500 ppm", "≤ 1e-05", "1", "-1.5", "2.2"]
    norms = [axes.images[0].norm for axes in figure.axes if axes.get_title()]
    assert [(norm.vmin, norm.vmax) for norm in norms] == [  # a scale for each map
        (0.125, flat.max()),
        (far.min(), far.max()),
        (1e-5, 1.0),
        (-1.5, 2.25),
    ]


def test_a_figure_is_as_tall_as_its_parts_with_and_without_a_title() -> None:
    """Titles of maps of two lines stand within the figure."""
    heat_map = HeatMap(np.eye(8, 4), "S\nhead", (0.5, 0.5))
    row = PersonMaps("", np.zeros((8, 4, 3), np.uint8), [], {"": [heat_map]}, [])
    figures = [draw_maps([row], title, "Caption") for title in ("", "Figure")]
    tops = []
    for figure, count in zip(figures, (1, 2), strict=True):
        figure.draw_without_rendering()
        axes = next(axes for axes in figure.axes if axes.get_title())
        top = axes.title.get_window_extent().y1
        assert top < figure.bbox.y1
        assert len([text for text in figure.texts if text.get_text()]) == count
        tops.append(axes.bbox.y1)
    assert tops[0] == pytest.approx(tops[1])  # from below
    bottom = figures[1].texts[0].get_window_extent().y0
    assert bottom > top  # the title of the figure is above


def test_a_curve_has_no_title_of_its_own() -> None:
    band = drawing.Band([1, 2], [50, 60], [49, 59], [51, 61])
    figure = drawing.sensitivity({"mAP": {"synthetic": band}}, {}, "sigma")
    assert figure.get_suptitle() == ""
    [line] = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1, 50], [2, 60]]
    assert figure.axes[0].get_xlabel() == "sigma"


@pytest.fixture(scope="module")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained run on each of two data sets."""
    folder = tmp_path_factory.mktemp("trained")
    for run in (RUN, RUN._replace(dataset="market1501", recipe="short")):
        (folder / run.folder).mkdir(parents=True)
        save(trained(), folder / run.folder, dataset=run.dataset, height=128, width=64)
    return folder


@pytest.fixture
def project(trained_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, small figures, the trained runs, and images of one data set."""
    shutil.copytree(trained_runs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    (tmp_path / "experiments").mkdir()
    for name in ("figure4", "figure8"):
        figure = read_figure(name, channels=[5] if name == "figure8" else [])
        content = yaml.safe_dump(figure.model_dump(mode="json"))
        (tmp_path / f"experiments/{name}.yaml").write_text(content)
    names = ["0060_c1s1_008501_00.jpg", "0060_c5s1_008151_00.jpg", "0112_c1s1_019001_00.jpg"]
    paths = [f"Market-1501-v15.09.15/query/{name}" for name in names]
    prepared = tmp_path / "data/prepared/market1501"
    prepared.mkdir(parents=True)
    table = pd.DataFrame({"path": paths, "person": [60, 60, 112], "camera": [1, 5, 1]})
    table.to_parquet(prepared / "table.parquet")
    np.save(prepared / "128x64.npy", np.random.default_rng(0).integers(
        0, 256, (3, 128, 64, 3), dtype=np.uint8
    ))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["figure", *words])
    stage.main()


@pytest.mark.slow
def test_command(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "figure4")
    text = Path("results/figures/figure4.svg").read_text()
    assert text.startswith("<?xml")
    assert ">K = 1<" in text
    assert "Figure 4" not in text  # which stands above the figure on the page
    command(monkeypatch, "figure4")
    assert Path("results/figures/figure4.svg").read_text() == text
    other = ("--run", "market1501.stage23.short.0", "--to", "build/other.svg")
    command(monkeypatch, "figure4", *other)
    assert Path("build/other.svg").read_text() != text
    assert [path.name for path in Path("results/figures").iterdir()] == ["figure4.svg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["figure9"], r"experiments/figure9\.yaml does not exist: choose figure4, figure8"),
        (["figure4", "--run", "synthetic.stage23.quick.0"], "--run and --to go together"),
        (["figure4", "--to", "x.svg"], "--run and --to go together"),
        (["figure4", "--run", "here.stage23.quick.0", "--to", "x.svg"],
         "key here.stage23.quick.0 names 'here', but datasets of params.yaml has only synthetic"),
        (["figure4", "--run", "synthetic-stage23-quick-0", "--to", "x.svg"],
         "^'synthetic-stage23-quick-0' is no key: give <data set>.<network>.<recipe>.<seed>"),
        (["figure4", "--run", "market1501.stage23.short.0.synthetic", "--to", "x.svg"],
         "a run's key has four names"),
        (["table4f"], r"experiments/table4f\.yaml does not exist: choose figure4, figure8"),
        (["figure4", "--run", "synthetic.base.quick.0", "--to", "x.svg"],
         r"runs/synthetic\.base\.quick\.0 does not exist: `dvc repro train@synthetic\.base\.quick"),
        (["figure8", "--run", "market1501.stage23.short.0", "--to", "x.svg"],
         "market1501 has 0 images 0112_c2s1_018451_00.jpg, not 1"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(
    words: list[str], message: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        command(monkeypatch, *words)
    assert not Path("x.svg").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [129]}, "channel 129 is out of range: stage2 has 128 channels, from 1"),
        ({"points": ["nose"]}, r"Figure 8: \(a\): there is no point 'nose' in the image"),
        ({"stage": "stage1"}, "no IA block stands after stage1: the blocks are ia, after stage2"),
        ({"maps": {"S": {"sale": 1.0}}}, "an option of a relation is wrong: .*'sale'"),
        ({"maps": {"S": {"relation": "near"}}}, "relation is 'near': choose one of appearance"),
    ],
)  # fmt: skip
def test_mistakes_in_a_figure(changes: dict[str, Any], message: str) -> None:
    figure = read_figure("figure8", **changes)
    with pytest.raises(ValueError, match=message):
        compute_maps(figure, trained(), draw_people(figure, seed=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"after": {}}, "the network has no block: take a network with IA"),
        ({"options": {"arrangement": "cia"}}, "the block after stage2 is 'cia': it has no SIA"),
        ({"options": {"arrangement": "sia"}}, "the block after stage2 has no CIA"),
    ],
)
def test_networks_that_lack_what_a_figure_shows(options: dict[str, Any], message: str) -> None:
    figure = read_figure("figure8")
    people = draw_people(figure, seed=0)
    with pytest.raises(ValueError, match=message):
        compute_maps(figure, trained(**options), people)


def test_a_point_outside_the_image_is_named() -> None:
    people = [{"label": "near", "person": 0, "facing": 0, "stride": 0.1, "phase": 0, "camera": 1,
               "stature": 1.6}]  # fmt: skip
    figure = read_figure("figure8", people=people, points=["torso", "shoe"])
    with pytest.raises(
        SettingsError, match="Figure 8: near: there is no point 'shoe' in the image"
    ):
        compute_maps(figure, trained(), draw_people(figure, seed=0))


def change_settings(**sections: Any) -> Settings:
    return Settings.model_validate({**yaml.safe_load(Path("params.yaml").read_text()), **sections})


def test_a_figure_trains_what_it_needs_and_no_more() -> None:
    current = load()
    alone = {"figure8": read_figure("figure8", network="stage3")}
    run = Run("synthetic", "stage3", current.datasets["synthetic"].recipes["plain"], 0)
    start = Run("pretraining", "resnet18", "pretrain", 0)
    assert unique_runs(Plan(current, alone).evaluations()) == [start, run]
    stages = build_pipeline(Plan(current, alone))["stages"]
    assert list(stages["train"]["foreach"]) == [start.key, run.key]
    assert stages["figure8"]["deps"] == [
        "experiments/figure8.yaml",
        str(run.folder),
        "build/sources/networks/stage3/figure.json",
        "build/sources/stages/figure.json",
    ]
    assert stages["figure8"]["outs"] == [{"results/figures/figure8.svg": {"cache": False}}]
    assert Plan(change_settings(at_hand=["market1501"]), alone).evaluations() == []


def test_mistakes_in_a_figures_file_are_named(
    project: Path, rewritten: Callable[[Path, str, str], None]
) -> None:
    path = Path("experiments/figure4.yaml")
    rewritten(path, "network: stage23", "network: stage9")
    with pytest.raises(SettingsError, match=r"figure4\.yaml: network names 'stage9', but networks"):
        read_experiments(load())
    rewritten(path, "network: stage9", "network: stage23\nnetwrok: x")
    with pytest.raises(
        SettingsError, match=r"^experiments/figure4\.yaml: relations\.netwrok \(line \d+\): "
    ):
        read_experiments(load())
