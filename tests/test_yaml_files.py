"""YAML files: the types of their values, the lines of mistakes, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.experiments import AnyExperiment, Values
from pipeline.config.settings import SettingsError, read_validated
from pipeline.config.yaml_files import DEPTH, VALUES, read_yaml

ROOT = Path(__file__).parents[1]


def write(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),  # which YAML 1.1 takes for a text
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("010", 10),  # 8 in YAML 1.1
        ("+7", 7),
        ("2026-11-29", "2026-11-29"),  # a date in YAML 1.1
        ("12:30", "12:30"),  # 750
        ("no", "no"),  # false
        ("1_000", "1_000"),  # 1000
        ("0x1F", "0x1F"),
        ("true", True),
        ("!!bool true", True),
        ("!!float 5", 5.0),
        ("!!int '7'", 7),
        ("!!str 7", "7"),
        ("~", None),
        ("''", ""),
        ("'7'", "7"),
        ("[1, [2]]", [1, [2]]),
    ],
)
def test_values_have_the_types_of_yaml_1_2(text: str, expected: Any, tmp_path: Path) -> None:
    values = read_yaml(write(tmp_path, f"a: {text}\n")).content
    assert values == {"a": expected}
    assert type(values["a"]) is type(expected)


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))], ids=str
)
def test_our_own_files_mean_the_same_to_every_reader(path: Path) -> None:
    assert read_yaml(path).content == yaml.safe_load(path.read_text())


def test_each_value_has_its_line(tmp_path: Path) -> None:
    text = "a:\n  b: [1,\n   2]\nc: &c\n  d: 3\ne:\n  <<: *c\n  f: 4\n"
    document = read_yaml(write(tmp_path, text))
    assert document.content == {"a": {"b": [1, 2]}, "c": {"d": 3}, "e": {"d": 3, "f": 4}}
    places = {("a", "b", 0): 2, ("a", "b", 1): 3, ("c", "d"): 5, ("e", "d"): 5, ("e", "f"): 8}
    assert {place: document.find_line(place) for place in places} == places
    # pydantic names types among the places, and values that are missing.
    assert document.find_line(("a", "tuple", "b", 1, "missing")) == 3
    assert document.find_line(("missing",)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r", line 3: 'a' stands in line 1 already: keep a single value"),
        ("a: {b: 1,\n  c: 2,\n  b: 1}\n", r", line 3: 'b' stands in line 1 already"),
        ("1: a\n1.0: b\n", r", line 2: '1\.0' stands in line 1 already"),
        ("- {x: 1}\n- y: 1\n  y: 2\n", r", line 3: 'y' stands in line 2 already"),
        ("a:\n- !!binary aGVsbG8=\n", r", line 2: the type tag:yaml\.org,2002:binary is unknown"),
        ("a: !!timestamp 2026-11-29\n", ", line 1: the type .*timestamp is unknown"),
        ("a: !!python/object/apply:os.getcwd []\n", ", line 1: the type .*getcwd is unknown"),
        ("!!set {a, b}\n", ", line 1: the type .*set is unknown"),
        ("? [1]\n: 2\n", ", line 1: a name must be a text or a number"),
        ("? !!binary aGVsbG8=\n: 2\n", ", line 1: a name must be a text or a number"),
        ("a:\n- *b\n", ", line 2: found undefined alias 'b'"),
        ("a: [\n", ", line 2: expected the node content"),
        ("a: 1\n---\nb: 1\n", ", line 2: expected a single document .*, but found another doc"),
        (
            f"a:\n  {'[' * (DEPTH + 1)}{']' * (DEPTH + 1)}\n",
            f", line 2: values are nested more than {DEPTH}",
        ),
        ("a: " + "[" * 5000, f" is nested more than {DEPTH} deep: flatten the file"),
        ("a: &a [*a]\n", f", line 1: values are nested more than {DEPTH} deep"),
        (
            "".join(f"- &a{n} [{f'*a{n - 1}, ' * 9 if n else 'x'}]\n" for n in range(15)),
            rf" is not YAML: it holds more than {VALUES:,} values",
        ),
        (
            "a:\n- !!bool maybe\n",
            ", line 2: the value is no bool: correct the value or leave out !!b",
        ),
        ('a:\n- !!bool ""\n', ", line 2: the value is no bool"),
        ('a: !!bool "true\\n"\n', ", line 1: the value is no bool"),
        ('a: !!float ""\n', ", line 1: the value is no float"),
        ("b: 1\na: !!int abc\n", ", line 2: the value is no int"),
        ("a: !!int [1]\n", ", line 1: the value is no int"),
        ("a: !!null 1\n", ", line 1: the value is no null"),
        ("!!bool maybe: 1\n", ", line 1: the value is no bool"),
        ("a: \x00", " is not YAML: unacceptable character #x0000"),
        ("a: 1\nb: " + "9" * 301, ", line 2: the number has more than 300 digits: give a sm"),
        (
            'a: 1\nb: ["x\\ud800"]\n',
            r", line 2: a text holds .* half a surrogate pair, such as .ud800: ",
        ),
        ('a: "x\\0"\n', r", line 1: a text holds .0 or half a surrogate pair"),
        ('"x\\0": a\n', r", line 1: a text holds .0 or half a surrogate pair"),
    ],
)
def test_what_is_refused_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a\.yaml{message}") as info:
        read_yaml(write(tmp_path, text))
    assert "\n" not in str(info.value)


def test_nesting_as_deep_as_allowed_is_read(tmp_path: Path) -> None:
    depth = DEPTH - 1
    content = read_yaml(write(tmp_path, f"a: {'[' * depth}{']' * depth}\n")).content["a"]
    for _ in range(depth - 1):
        (content,) = content
    assert content == []


def test_what_is_no_regular_file_is_told(tmp_path: Path, make_pipe: Callable[[Path], None]) -> None:
    make_pipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").symlink_to("/dev/zero")
    for name in ("a.yaml", "b.yaml"):
        with pytest.raises(ValueError, match=rf"{name} is no regular file: put a YAML file there"):
            read_yaml(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1, 2]", "[1, 1.0]", None),
        ("[1, 2]", "[1, 1]", r"line 8\): 1 stands there more than once"),
        ("grid", "gird", r"algorithm \(line 7\): Input should be 'grid'"),
        ("values: [1, 2]", f"subsets: {list(range(64))}", "more than 100,000 choices cannot be"),
        ("kind: search", "kind: sarch", r"'sarch' is no 'kind': give one of 'table', 'curve', "),
        ("kind: search\n", "", r"yaml: 'kind' is missing: say what the file describes, such as"),
        ("grid", "random\ntrials: 1e9", r"trials \(line 8\): Input should be less than or"),
        ("values: [1, 2]", "integers: [0, 1e300]", r"line 8\): .*exceeded maximum size"),
        ("grid", "random\ntrials: true", r"trials \(line 8\): true is no number: give a number$"),
        ("values: [1, 2]", "uniform: [true, 2]", r"line 8\): true is no number: give a number$"),
        ("values: [1, 2]", "integers: [false, 2]", r"line 8\): false is no number: give a number$"),
        ("values: [1, 2]", "uniform: [5, 2]", r"line 8\): uniform is \[5.0, 2.0\]: the first must"),
        ("{values: [1, 2]}", "3", r"\.lr \(line 8\): give one of values, subsets, integers, unifo"),
        ("values: [1, 2]", "value: 1", r"\.lr \(line 8\): give one of values, subsets, integers"),
    ],
)
def test_a_mistake_in_an_experiment_has_its_line(
    old: str, new: str, message: str | None, tmp_path: Path
) -> None:
    text = (
        "kind: search\ntitle: t\ncaption: c\ndataset: synthetic\nnetwork: base\nrecipe: quick\n"
        "algorithm: grid\nspace: {training.lr: {values: [1, 2]}}\n"
    )
    path = write(tmp_path, text.replace(old, new))
    if message is None:
        read_validated(AnyExperiment, path)
        return
    with pytest.raises(SettingsError, match=message) as info:
        read_validated(AnyExperiment, path)
    assert "\n" not in str(info.value)


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    with pytest.raises(
        SettingsError, match=r"^\S+a\.yaml cannot be read \(Too many .+\): write it"
    ):
        read_validated(AnyExperiment, tmp_path / "a.yaml")


def test_a_number_in_quotes_is_a_number_of_a_search() -> None:
    originals = (True, 1, 1.0, "1e-4", "7", "a", "nan", None, [1, "2"])
    values = Values(values=originals).values
    assert list(map(repr, values)) == list(
        map(repr, (True, 1, 1.0, 1e-4, 7.0, "a", "nan", None, [1, "2"]))
    )
