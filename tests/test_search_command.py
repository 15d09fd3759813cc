"""`ianet search`: its table, its files and its page."""

from __future__ import annotations

import base64
import io
import json
import re
import resource
import shutil
import signal
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import Scheme, find_violations, needs_browser, open_page, start_browser
from conftest import archive_folder, noise, written
from numpy.typing import NDArray
from PIL import Image
from test_calibration import CALIBRATION
from tiny_models import Outcome, tiny_model

import ianet
from ianet.comparison import Interval
from ianet.feature_table import FeatureTable
from ianet.model import Model, write_model
from ianet.open_set import OpenSetSearch, SearchThreshold
from ianet.pictures import Picture
from ianet.ranks_page import sort_queries, write_page


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of a folder for each person, and two queries, copies of pictures there."""
    root = tmp_path_factory.mktemp("people")
    for seed, name in enumerate(["gallery/anna/hall_1.jpg", "gallery/anna/door_2.jpg",
                                 "gallery/bert/hall_3.jpg", "gallery/bert/4.jpg"]):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(noise(seed, 64, 32))
    for source, name in [("anna/hall_1", "anna/a"), ("bert/hall_3", "anna/b")]:
        target = root / f"query/{name}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"gallery/{source}.jpg", target)
    return root


@pytest.mark.slow
def test_ranks_in_every_form(
    model: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    gallery, query = people / "gallery", people / "query"
    arguments = ["search", model, query, gallery, "-k", "2", "--labels", "folders"]
    outcome = run(*arguments, "-o", tmp_path / "ranks.csv")
    assert (outcome.code, outcome.errors) == (0, "")
    assert [line.split() for line in outcome.output.splitlines()][:2] == [
        ["query", "rank", "path", "distance", "person", "right"],
        [f"{query}/anna/a.jpg", "1", f"{gallery}/anna/hall_1.jpg", "0.0000", "anna", "✓"],
    ]
    ranks = pd.read_csv(tmp_path / "ranks.csv")
    assert ranks["rank"].tolist() == [1, 2, 1, 2]
    assert ranks.right.tolist()[0] is True
    assert ranks.path[2] == f"{gallery}/bert/hall_3.jpg"
    assert not ranks.right[2]
    features = {
        Path(path).stem: vector
        for table in [ianet.load(model).embed([query, gallery])]
        for path, vector in zip(table.paths, table.features, strict=True)
    }
    for row in ranks.itertuples():
        pair = [features[Path(str(path)).stem] for path in (row.query, row.path)]
        cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
        assert row.distance == pytest.approx(1 - cosine, abs=1e-5)
    answer = json.loads(run(*arguments, "--json").output)
    assert [row["path"] for row in answer] == ranks.path.tolist()
    assert run(*arguments, "-o", tmp_path / "ranks.parquet").code == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "ranks.parquet"), ranks, check_dtype=False, rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_feature_files_give_the_ranks_of_their_pictures(
    model: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome], suffix: str
) -> None:
    files = {}
    for name in ("query", "gallery"):
        files[name] = tmp_path / f"{name}{suffix}"
        assert run("embed", model, people / name, "-o", files[name]).code == 0
    expected = json.loads(
        run("search", model, people / "query", people / "gallery", "--json").output
    )
    rows = json.loads(run("search", model, *files.values(), "--json").output)
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    assert [row["right"] for row in rows] == [None] * 8
    listed = tmp_path / "list.csv"
    listed.write_text(f"path\n{people}/query/anna/a.jpg\n")
    assert len(json.loads(run("search", model, listed, files["gallery"], "--json").output)) == 4


NUMBERS = 2**16
"""Of a feature in the tests of memory, so that other memory does not matter."""


def draw(path: str) -> NDArray[np.float32]:
    """Return the feature of a picture, which no network computes."""
    return np.random.default_rng([*Path(path).name.encode()]).standard_normal(NUMBERS, np.float32)


def draw_batches(
    model: Model, pictures: list[Picture], *, batch: int, **options: object
) -> Iterator[FeatureTable]:
    for first in range(0, len(pictures), batch):
        paths = [picture.path for picture in pictures[first : first + batch]]
        unknown = [""] * len(paths)
        yield FeatureTable(np.stack([*map(draw, paths)]), paths, unknown, unknown, model.identity)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `tempfile`, empty. Features are drawn, and four are a block of a file."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(Model, "embed_batches", draw_batches)
    monkeypatch.setattr("ianet.feature_files.BLOCK", 4)
    return folder


def test_galleries_are_searched_together(
    people: Path, model: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    """A file of features, and a folder of pictures that came later, as the folder of all."""
    options, names = ("-k", "4", "--json"), ("query", "rank", "path")
    query, anna, features = people / "query", people / "gallery/anna", tmp_path / "anna.parquet"
    assert run("embed", model, anna, "-o", features).code == 0
    whole = json.loads(run("search", model, query, people / "gallery", *options).output)
    parts = run("search", model, query, features, people / "gallery/bert", *options)
    for row, part in zip(whole, json.loads(parts.output), strict=True):
        assert [part[name] for name in names] == [row[name] for name in names]
        assert part["distance"] == pytest.approx(row["distance"], abs=1e-6)
    assert len(whole) == 8


def test_the_features_of_a_gallery_of_pictures_are_not_held_as_a_whole(
    model: Path,
    temporary: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery = written(tmp_path / "gallery", [f"{number}.jpg" for number in range(64)])
    output = tmp_path / "ranks.csv"

    def trace(
        model: Model, pictures: list[Picture], *, batch: int, **options: object
    ) -> Iterator[FeatureTable]:
        tracemalloc.start()  # the model has been loaded
        yield from draw_batches(model, pictures, batch=batch)

    monkeypatch.setattr(Model, "embed_batches", trace)
    arguments = ("search", model, gallery / "9.jpg", gallery, "-k", "63", "--batch", "2")
    assert run(*arguments, "-o", output).code == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 4 * NUMBERS / 2
    assert list(temporary.iterdir()) == []
    ranks = pd.read_csv(output)
    query = draw("9.jpg")
    for row in ranks.itertuples():
        feature = draw(str(row.path))
        cosine = query @ feature / np.linalg.norm(query) / np.linalg.norm(feature)
        assert row.distance == pytest.approx(1 - cosine, abs=1e-5)
    assert ranks.distance.is_monotonic_increasing
    assert set(ranks.path) == {str(path) for path in gallery.iterdir()} - {f"{gallery}/9.jpg"}


def test_ctrl_c_leaves_no_temporary_file(
    model: Path,
    temporary: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery = written(tmp_path / "gallery", [f"{number}.jpg" for number in range(8)])
    kept: list[Path] = []

    def stop(
        model: Model, pictures: list[Picture], *, batch: int, **options: object
    ) -> Iterator[FeatureTable]:
        yield from draw_batches(model, pictures, batch=batch)
        if len(pictures) > 1:
            kept.extend(path for path in temporary.rglob("*") if path.is_file())
            raise KeyboardInterrupt

    monkeypatch.setattr(Model, "embed_batches", stop)
    outcome = run("search", model, gallery / "0.jpg", gallery, "--batch", "2")
    assert outcome == (130, "", "stopped\n")
    assert len(kept) == 1
    assert list(temporary.iterdir()) == []


def test_a_full_disk_of_temporary_files_is_one_line(
    model: Path, temporary: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    """The system allows no file above some bytes, which fails as a full disk does."""
    gallery = written(tmp_path / "gallery", ["0.jpg", "1.jpg"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        outcome = run("search", model, gallery / "0.jpg", gallery)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (outcome.code, outcome.output) == (2, "")
    place = re.escape(f"{temporary}/ianet-")
    assert re.fullmatch(
        rf"error: .*File too large: '{place}\w+/features.parquet'\n", outcome.errors
    )
    assert list(temporary.iterdir()) == []


def test_a_file_of_features_that_is_missing_is_called_so(
    model: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    file = tmp_path / "gallery.parquet"
    message = f"error: {file} does not exist: `ianet embed` makes such a file\n"
    assert run("search", model, people / "query", file) == (2, "", message)


def test_a_query_without_a_neighbour_is_told(
    model: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    picture = people / "query/anna/a.jpg"
    outcome = run("search", model, picture, picture, "--json")
    message = "1 query has no neighbour, as the gallery holds no other picture\n"
    assert outcome == (0, "[]\n", message)


def test_features_of_another_model_are_refused(
    model: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    other = tiny_model(tmp_path / "other", seed=1, name="other")
    file = tmp_path / "gallery.parquet"
    run("embed", other, people / "gallery", "-o", file)
    outcome = run("search", model, people / "query", file)
    assert outcome.code == 2
    assert outcome.errors.startswith(f"error: {file} holds features of other sha256:")
    assert outcome.errors.count("\n") == 1


@pytest.fixture(scope="module")
def accepting(model: Path, people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with search thresholds of flipped features: 1e-5, and one that leaves out the
    farthest picture of the first query.
    """
    loaded = ianet.load(model)
    table = loaded.embed([people / "query", people / "gallery"], flip=True)
    rows = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    *_, near, far = sorted(1 - rows[0] @ rows[2:].T)
    limit = float(near + far) / 2
    interval = Interval(0.5, 0.4, 0.6)
    calibration = replace(
        CALIBRATION,
        search=OpenSetSearch(
            *(9, 3, 8, 20),
            (
                SearchThreshold(0.01, Interval(1e-5, 0, 1), interval),
                SearchThreshold(0.5, Interval(limit, 0, 2), interval),
            ),
        ),
        flip=True,
    )
    target = tmp_path_factory.mktemp("models") / "accepting"
    description = replace(loaded.description, calibration=calibration)
    write_model(loaded.network, description, target)
    return target


@pytest.mark.parametrize("far", [0.01, 0.5])
def test_neighbours_within_the_search_threshold_are_accepted(
    accepting: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome], far: float
) -> None:
    calibration = ianet.load(accepting).description.calibration
    assert calibration is not None
    threshold = calibration.find_search_threshold(far)
    assert threshold is not None
    limit = threshold.distance.value
    arguments = ["search", accepting, people / "query", people / "gallery", "--labels", "folders"]
    arguments += ["-k", "4"] if far == 0.01 else ["-k", "4", "--far", str(far)]
    outcome = run(*arguments, "-o", tmp_path / "ranks.csv", "--html", tmp_path / "ranks.html")
    ranks = pd.read_csv(tmp_path / "ranks.csv")
    assert ranks.accepted.tolist() == [distance < limit for distance in ranks.distance]
    counts = ranks.groupby("query").accepted.sum()
    assert counts.iloc[0] == {0.01: 1, 0.5: 3}[far]  # its own copy, and all but the farthest
    assert outcome.errors == (
        f"accepted: nearer than {limit:.4f}, the threshold at a false-accept rate of {far:g} in a "
        "gallery of 20\n"
    )
    lines = [line.split() for line in outcome.output.splitlines()]
    assert lines[0][-2:] == ["right", "accepted"]
    assert [line[-1] for line in lines[1:]] == ["✓" if each else "✗" for each in ranks.accepted]
    answer = json.loads(run(*arguments, "--json").output)
    assert [row["accepted"] for row in answer] == ranks.accepted.tolist()
    run(*arguments, "-o", tmp_path / "ranks.parquet")
    assert pd.read_parquet(tmp_path / "ranks.parquet").accepted.tolist() == ranks.accepted.tolist()

    text = (tmp_path / "ranks.html").read_text()
    page = Page(text)
    captions = [
        (image["alt"].split(": ")[1].split(", ")[0], image["alt"].split(", ")[-1])
        for image in page.images
        if image["alt"].startswith("rank")
    ]
    words = {True: "accepted", False: "rejected"}
    expected = [(row.path, words[bool(row.accepted)]) for row in ranks.itertuples()]
    assert sorted(captions) == sorted(expected)
    signs = "".join(sign for text in page.texts for sign in text[:1] if sign in "●○")
    assert (signs.count("●"), signs.count("○")) == (
        ranks.accepted.sum(),
        (~ranks.accepted).sum(),
    )
    assert text.count('<span class="accepted">● 0.000</span>') == 2
    assert any("A blue ● is nearer than the threshold of the model" in text for text in page.texts)


def test_a_false_accept_rate_needs_a_search_threshold(
    model: Path, accepting: Path, run: Callable[..., Outcome]
) -> None:
    outcome = run("search", model, "query", "gallery", "--far", "0.1")
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(f"error: {model} has no search threshold: find one with ")
    outcome = run("search", accepting, "query", "gallery", "--far", "0.1")
    assert outcome.errors == (
        "error: no threshold is known for a false-accept rate of 0.1: choose one of 0.01, 0.5\n"
    )


@pytest.mark.slow
def test_pictures_are_searched_as_the_features_that_they_meet(
    model: Path, accepting: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    files = {}
    for name, flip in (("flipped", ["--flip"]), ("plain", [])):
        files[name] = tmp_path / f"{name}.parquet"
        run("embed", model, people / "gallery", "-o", files[name], *flip)
    distances = {}
    for name, flip in (("flipped", ["--flip"]), ("plain", [])):
        query = ("search", model, people / "query")
        distances[name] = json.loads(run(*query, people / "gallery", "--json", *flip).output)
        assert json.loads(run(*query, files[name], "--json").output) == distances[name]
        assert json.loads(run(*query, files[name], "--json", *flip).output) == distances[name]
    assert distances["flipped"] != distances["plain"]
    rows = json.loads(
        run("search", accepting, people / "query", people / "gallery", "--json").output
    )
    assert [row["distance"] for row in rows] == [row["distance"] for row in distances["flipped"]]
    refused = [
        (["search", model, files["plain"], files["flipped"]], files["flipped"], files["plain"]),
        (["search", model, files["flipped"], files["plain"]], files["flipped"], files["plain"]),
        (
            ["search", model, people / "query", files["plain"], "--flip"],
            "this command",
            files["plain"],
        ),
        (
            ["search", accepting, people / "query", files["plain"]],
            f"the search threshold of {accepting}",
            files["plain"],
        ),
    ]
    for arguments, flipped, plain in refused:
        assert run(*arguments) == (
            2,
            "",
            f"error: {flipped} has features with --flip, and {plain} has features without: the two "
            "cannot be compared, so take --flip for all pictures or for none\n",
        )


def test_paths_like_formulas_are_text_in_a_csv_file(
    model: Path, tmp_path: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1.jpg", "@b.jpg"):
        Path(name).write_bytes(noise(0, 64, 32))
    run("search", model, "=1+1.jpg", "@b.jpg", "-o", "ranks.csv")
    ranks = pd.read_csv("ranks.csv")
    assert ranks[["query", "path"]].to_numpy().tolist() == [["'=1+1.jpg", "'@b.jpg"]]
    assert ranks.distance.tolist() == [pytest.approx(0, abs=1e-6)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "ranks.txt"], "error: ranks.txt does not end in .csv or .parquet"),
        (["--html", "ranks.pdf"], "error: ranks.pdf does not end in .html"),
        (["-k", "0"], "error: Invalid value for '-k'"),
        (["--sort", "x"], "error: Invalid value for '--sort'"),
    ],
)
def test_bad_options(arguments: list[str], message: str, run: Callable[..., Outcome]) -> None:
    outcome = run("search", "model", "query", "gallery", *arguments)
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(message)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *(("-o", "folder.csv"), ("--html", "folder.html"), ("-o", "file/ranks.csv")),
        *(("-o", "gallery.parquet"), ("-o", "query.csv")),
    ],
)
def test_a_wrong_output_is_refused_before_the_work(
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.csv", "folder.html"):
        Path(folder).mkdir()
    for file in ("file", "gallery.parquet", "query.csv"):
        Path(file).write_text("as before")
    outcome = run("search", "model", "query.csv", tmp_path / "gallery.parquet", option, name)
    reason = {
        "file/ranks.csv": f"cannot be written, as {tmp_path}/file is no folder: name another one",
        "gallery.parquet": f"would overwrite {tmp_path}/gallery.parquet: name another file",
        "query.csv": "would overwrite query.csv: name another file",
    }.get(name, "is a folder: name a file")
    assert outcome == (2, "", f"error: {name} {reason}\n")
    assert Path("gallery.parquet").read_text() == Path("query.csv").read_text() == "as before"


def test_the_terminal_says_where_all_queries_are(
    model: Path,
    people: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ianet.cli.commands.search.TERMINAL_QUERIES", 1)
    arguments = ["search", model, people / "query", people / "gallery", "-k", "1"]
    assert run(*arguments).errors == "1 more queries: -o FILE writes all of them\n"
    output = tmp_path / "ranks.csv"
    assert run(*arguments, "-o", output).errors == f"{output} has all 2 queries\n"
    assert pd.read_csv(output)["query"].nunique() == 2


class Page(HTMLParser):
    """The parts of a page that the tests look at; every tag that is opened is closed."""

    void = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.items: list[str] = []
        self.headings: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == ["html"]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag == "li":
            self.items.append(str(dict(attributes)["class"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)
        self.texts.append(data.strip())


def test_the_page_shows_the_worst_query_first(
    model: Path, people: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    shutil.copytree(people / "gallery", tmp_path / "gallery")
    archive = archive_folder(tmp_path / "gallery", "zip")
    file, target = tmp_path / "gallery.parquet", tmp_path / "ranks.html"
    run("embed", model, archive, "-o", file, "--labels", "folders")
    arguments = ["search", model, people / "query", file, "-k", "2", "--labels", "folders"]
    assert run(*arguments, "--html", target).code == 0
    text = target.read_text()
    page = Page(text)
    assert page.headings == [
        f"{people}/query/anna/b.jpg, person anna",
        f"{people}/query/anna/a.jpg, person anna",
    ]
    assert page.items[:2] == ["", "wrong"]
    assert page.items[3:5] == ["", "right"]
    assert page.images[1]["alt"] == (
        f"rank 1: {archive}/gallery/bert/hall_3.jpg, person bert, distance 0.000, wrong"
    )
    assert ("✗ 1" in page.texts, "✓ 1" in page.texts) == (True, True)
    picture = Image.open(io.BytesIO(base64.b64decode(page.images[1]["src"].split(",")[1])))
    assert (picture.format, picture.size) == ("JPEG", (32, 64))
    assert "http" not in text
    assert run(*arguments, "--html", target, "--sort", "best", "--queries", "1").code == 0
    page = Page(target.read_text())
    assert page.headings == [f"{people}/query/anna/a.jpg, person anna"]
    assert any("1 of 2 queries." in text for text in page.texts)


def ranks(
    *rows: tuple[str, int, bool | None], path: str = "g.jpg", person: str = ""
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "query": [query for query, _, _ in rows],
            "rank": [rank for _, rank, _ in rows],
            "path": path,
            "distance": 0.25,
            "query_person": person,
            "person": person,
            "camera": "",
            "right": pd.array([right for *_, right in rows], dtype="boolean"),
        }
    )


def test_queries_are_sorted_by_their_average_precision() -> None:
    table = ranks(
        ("unknown", 1, None), ("unknown", 2, None),
        ("best", 1, True), ("best", 2, False),
        ("none", 1, False), ("none", 2, False),
        ("second", 1, False), ("second", 2, True),
        ("both", 1, True), ("both", 2, True),
    )  # fmt: skip
    assert sort_queries(table, "worst") == ["none", "second", "best", "both", "unknown"]
    assert sort_queries(table, "best") == ["best", "both", "second", "none", "unknown"]
    assert sort_queries(table, "given") == ["unknown", "best", "none", "second", "both"]


def test_a_query_that_is_given_twice_has_one_list_on_the_page() -> None:
    table = ranks(("q", 1, True), ("q", 2, True), ("q", 1, True), ("q", 2, True))
    other = ranks(("p", 1, True), ("p", 2, True))
    assert sort_queries(pd.concat([table, other]), "worst") == ["q", "p"]
    picture = Image.new("RGB", (96, 160), "red")
    text = "".join(write_page(table, ["q"], lambda _: picture, "Ranks"))
    page = Page(text)
    assert page.items == ["", "right", "right"]
    assert any("1 query." in text for text in page.texts)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_on_the_page(scheme: Scheme) -> None:
    table = ranks(("q", 1, True), ("q", 2, False)).assign(accepted=[True, False])
    picture = Image.new("RGB", (96, 160), "red")
    text = "".join(write_page(table, ["q"], lambda _: picture, "Ranks"))
    with start_browser() as browser, open_page(browser, text, 390, scheme) as (shown, messages):
        assert find_violations(shown) == []
        assert messages == []


def test_the_page_works_without_labels_and_escapes_text() -> None:
    def open_picture(path: str) -> Image.Image:
        if path == "q":
            return Image.new("RGB", (200, 400), "red")
        raise ValueError("<no such file>")

    name = '<script>"&.jpg'
    text = "".join(write_page(ranks(("q", 1, None), path=name), ["q"], open_picture, "<Ranks>"))
    page = Page(text)
    assert page.items == ["", "unknown"]
    assert len(page.images) == 1
    assert "<no such file>" in page.texts
    assert "<script>" not in text
    assert "&lt;script&gt;&quot;&amp;.jpg" in text
    assert "✓" not in text.split("</style>")[1]
    picture = Image.open(io.BytesIO(base64.b64decode(page.images[0]["src"].split(",")[1])))
    assert picture.size == (80, 160)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
