"""The commands of the documents: each says who ran it, and names only what exists."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

import click
import pytest
import torch
import typer
import yaml
from documents import (
    COMMANDS,
    PAGES,
    PLACEHOLDER,
    ROOT,
    Block,
    Marks,
    find_blocks,
    mask,
    read_page,
    split_commands,
)

import ianet
from ianet import blocks
from ianet.cli.app import app
from ianet.network import Network
from pipeline.config.settings import Cluster, Dataset, Settings, build_network, load
from pipeline.plan.runs import parse_run

MAKEFILE = (ROOT / "Makefile").read_text()
FOLDERS = "deploy|docs|experiments|ianet|pipeline|tests|benchmarks|searches|\\.ci|\\.github"
PROGRAMS = {
    *(".", "base64", "caddy", "cd", "cp", "curl", "docker", "export", "git", "grep", "helm"),
    *("kubectl", "pip", "sbatch", "sed", "ssh", "tar"),
}
"""Programs of others, of whose options only the files are looked at."""

OWN_PROGRAMS = ("make", "python", "ianet", "dvc", "mlflow", "ray", "pytest")
"""Programs of which all words are looked at."""

MESSAGES = ("ray client connection timeout",)
"""What a document quotes, and does not command."""

READER_FILES = (
    *("ianet/blocks/centre.py", "experiments/mine.yaml"),
    *("deploy/.env", "deploy/mlflow.env", "deploy/storage.env"),
)
"""Files that a reader makes."""

OWN_DATASET = "photos"  # the reader's, in examples
GROUPS = ("exp", "metrics", "plots", "remote", "models", "artifacts", "db", "job", "-m")
"""Words after which a further word says what a command does."""

# Whole languages of a page that a test runs.
TESTS = {
    ("README.md", "sh"): "test_use",
    ("docs/use.md", "sh"): "test_use",
    ("docs/use.md", "python"): "test_use",
    ("docs/data.md", "python"): "test_datasets",
    ("docs/experiments.md", "python"): "test_docs",
}


class Mistake(Exception):
    """What is wrong with a command."""


def command_blocks() -> list[Block]:
    """Of commands and of Python."""
    languages = (*COMMANDS, "python")
    blocks = [block for page in PAGES for block in read_page(page)[0]]
    return [block for block in blocks if block.language in languages]


def command_spans(page: Path) -> Iterator[tuple[list[str], Marks]]:
    """The words and the marks of the commands in the sentences of a page."""
    for text, marks in read_page(page)[1]:
        first = text.partition(" ")[0]
        if text in MESSAGES or first == text or first not in {*PROGRAMS, *OWN_PROGRAMS}:
            continue
        for words in split_commands(text):
            yield words, marks


def purpose(words: list[str]) -> tuple[str, ...]:
    """The leading words that say what a command does."""
    return tuple(words[: 3 if words[1:2] and words[1] in GROUPS else 2])


# Who ran a command


def marks_of(block: Block) -> Marks:
    test = TESTS.get((block.page, block.language))
    return block.marks or ((("test", test),) if test else ())


def test_each_block_of_commands_says_who_ran_the_commands() -> None:
    assert len(command_blocks()) > 30
    silent = [f"{block.page}:{block.line}" for block in command_blocks() if not marks_of(block)]
    assert not silent, "put <!--run:DATE-->, <!--test:NAME--> or <!--needs:WHAT--> before"


def test_each_command_of_a_sentence_was_run_somewhere() -> None:
    """The mark stands behind the command, there or on another page, or before a block of it."""
    marked = {
        purpose(words)
        for block in command_blocks()
        if block.language in COMMANDS and marks_of(block)
        for words in split_commands(block.text)
    }
    spans = [(page, words, marks) for page in PAGES for words, marks in command_spans(page)]
    marked |= {purpose(words) for _, words, marks in spans if marks}
    silent = {
        f"{page.name}: {' '.join(words)}"
        for page, words, _ in spans
        if purpose(words) not in marked
    }
    assert spans
    assert not silent, "put <!--run:DATE-->, <!--test:NAME--> or <!--needs:WHAT--> behind"


def holds(text: str, words: Sequence[str]) -> bool:
    """Whether a test's text holds the words; a module may be imported instead of run."""
    if words[:2] == ("python", "-m"):
        package, _, module = words[2].rpartition(".")
        return words[2] in text or f"from {package} import {module}" in text
    return all(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) for word in words)


def check_mark(kind: str, content: str, commands: Sequence[list[str]]) -> None:
    """Raise Mistake for a day that is none or not yet, or a test that runs no such command."""
    if kind == "run":
        try:
            day = date.fromisoformat(content)
        except ValueError as error:
            raise Mistake(str(error)) from None
        if day > datetime.now(UTC).date():
            raise Mistake(f"{content} is not yet")
    elif kind == "test":
        path = ROOT / f"tests/{content}.py"
        if not path.exists():
            raise Mistake(f"there is no {content}")
        for words in commands:
            if not holds(path.read_text(), purpose(words)):
                raise Mistake(f"{content} does not run {' '.join(purpose(words))}")


def test_the_marks_hold() -> None:
    """Each belongs to a command, each day is past, and each test runs the command."""
    marked = [
        (block.marks, split_commands(block.text) if block.language in COMMANDS else [])
        for block in command_blocks()
    ]
    marked += [(marks, [words]) for page in PAGES for words, marks in command_spans(page)]
    count = sum(len(marks) for marks, _ in marked)
    assert count == sum(page.read_text().count("<!--") for page in PAGES)
    for marks, commands in marked:
        for kind, content in marks:
            check_mark(kind, content, commands)


@pytest.mark.parametrize(
    ("kind", "content", "command", "mistake"),
    [
        ("run", "2026-11-31", "make repro", "day"),
        ("run", "9999-01-01", "make repro", "9999-01-01 is not yet"),
        ("test", "test_nothing", "make repro", "there is no test_nothing"),
        ("test", "test_site", "make site", "test_site does not run make site"),
        (
            *("test", "test_failures", "python -m pipeline.import_results ../elsewhere"),
            "test_failures does not run python -m pipeline.import_results",
        ),
    ],
)
def test_a_mistake_in_a_mark_is_seen(kind: str, content: str, command: str, mistake: str) -> None:
    with pytest.raises(Mistake, match=mistake):
        check_mark(kind, content, split_commands(command))


@pytest.mark.parametrize(("page", "language"), TESTS)
def test_a_test_reads_the_page_whose_blocks_the_test_runs(page: str, language: str) -> None:
    assert find_blocks(page, language)
    assert page in (ROOT / f"tests/{TESTS[page, language]}.py").read_text()


# What a command names


@cache
def settings() -> Settings:
    return load()


@cache
def stages() -> frozenset[str]:
    """Of both dvc.yaml, and the items of the stages with items."""
    names = set()
    for path in ("dvc.yaml", "searches/dvc.yaml"):
        prefix = "" if path == "dvc.yaml" else f"{path}:"
        for name, stage in yaml.safe_load((ROOT / path).read_text())["stages"].items():
            names.add(prefix + name)
            names |= {f"{prefix}{name}@{item}" for item in stage.get("foreach", {})}
    return frozenset(names)


def check_file(word: str) -> None:
    for path in re.findall(rf"(?<![\w/.<>-])((?:{FOLDERS})/[\w./-]*)", word):
        if path not in READER_FILES and PLACEHOLDER not in path and not (ROOT / path).exists():
            raise Mistake(f"{path} does not exist")


def check_key(key: str) -> None:
    """Of a run of params.yaml, or of the reader's own data set."""
    dataset, *others = key.split(".")
    if dataset == OWN_DATASET:
        key = ".".join(["synthetic", *others])
    try:
        parse_run(key, settings())
    except ValueError as error:
        raise Mistake(str(error)) from None


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    names = [word for word in words if "=" not in word]
    for target in names:
        if target not in targets:
            raise Mistake(f"make has no target {target}")
    values = dict(word.split("=", 1) for word in words if "=" in word)
    for name, value in values.items():
        if f"$({name})" not in MAKEFILE:
            raise Mistake(f"the Makefile has no {name}")
        if name == "ONLY" and value != PLACEHOLDER:
            for each in value.split():
                prefix = "search_" if names == ["search"] else ""
                check_file(f"experiments/{prefix}{each}.yaml")
        if name == "ARGS" and names[0] != "lock":
            check_python(["-m", f"pipeline.{names[0]}", *value.split()], is_complete=True)


def check_python(words: list[str], is_complete: bool) -> None:
    if words[0] == "-c":
        check_code(words[1])
    elif words[0] == "-m":
        module = words[1]
        folder = ROOT / module.replace(".", "/")
        if (folder / "__main__.py").exists():
            module += ".__main__"
        elif not folder.with_suffix(".py").exists():
            raise Mistake(f"there is no module {module}")
        parse(module, words[2:], is_complete)
        for word in words[2:]:
            if re.fullmatch(r"\w+\.[\w-]+\.[\w-]+\.\d+", word):
                check_key(word)
    else:
        check_file(words[0])


def parse(module: str, words: list[str], is_complete: bool) -> None:
    """Give words to the parser of a module of the pipeline, whose work does not begin."""
    original = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        original(self, words)
        raise EOFError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "error", refuse(is_complete))
        patch.setattr("pipeline.shell._configure_log", lambda: None)  # by -v
        with pytest.raises(EOFError):
            importlib.import_module(module).main()


def refuse(is_complete: bool) -> Callable[..., None]:
    """What argparse is to do at a mistake. In a sentence a command may lack what it needs."""

    def error(_: argparse.ArgumentParser, message: str, *__: object) -> None:
        raise EOFError if "required" in message and not is_complete else Mistake(message)

    return error


def check_click(command: click.Command, words: list[str], is_complete: bool) -> None:
    words = list(words)
    while hasattr(command, "commands"):
        name = words.pop(0)
        if name not in command.commands:
            raise Mistake(f"{command.name} has no command {name}")
        command = command.commands[name]
    try:
        command.make_context(command.name, words)
    except Exception as error:  # typer brings a click of its own
        lacking = type(error).__name__ == "MissingParameter" or "requires an argument" in str(error)
        if is_complete or not lacking:
            raise Mistake(str(error)) from None


def check_dvc(words: list[str], is_complete: bool) -> None:
    from dvc.cli.parser import DvcParser, get_main_parser  # a second

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DvcParser, "error", refuse(is_complete))
        try:
            arguments = get_main_parser().parse_args(words)
        except EOFError:
            return
    for target in getattr(arguments, "targets", None) or []:
        stage, _, key = target.rpartition("@")
        if OWN_DATASET in key and stage in stages():
            check_key(key)
        elif target not in stages():
            raise Mistake(f"dvc.yaml has no stage {target}")
    for option in getattr(arguments, "set_param", None) or []:
        value = yaml.safe_load((ROOT / "params.yaml").read_text())
        for name in option.partition("=")[0].split("."):
            if name not in value:
                raise Mistake(f"params.yaml has no {option}")
            value = value[name]


def check_code(text: str) -> None:
    """That the modules of this project that code names are there, with what is taken of them."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("ianet", "pipeline")):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    raise Mistake(f"{node.module} has no {alias.name}")
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "ianet"
            and not hasattr(ianet, node.attr)
        ):
            raise Mistake(f"ianet has no {node.attr}")


def check(words: list[str], is_complete: bool = True) -> None:
    """Raise Mistake where a command names something that is not there."""
    program, *rest = words
    for word in rest:
        check_file(word)
    if program == "make":
        check_make(rest)
    elif program == "python":
        check_python(rest, is_complete)
    elif program == "ianet":
        check_click(typer.main.get_command(app), rest, is_complete)
    elif program == "dvc":
        check_dvc(rest, is_complete)
    elif program == "mlflow":
        from mlflow.cli import cli  # seconds

        check_click(cli, rest, is_complete)
    elif program == "ray":
        from ray.scripts.scripts import cli as ray_cli

        check_click(ray_cli, rest, is_complete)
    elif program == "pytest":
        pass  # its files
    elif program not in PROGRAMS:
        raise Mistake(f"{program} is no program that tests/test_docs.py knows")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_commands_and_sentences_name_exists(page: Path) -> None:
    blocks, spans = read_page(page)
    commands = [(words, False) for words, _ in command_spans(page)]
    for block in blocks:
        if block.language in COMMANDS:
            commands += [(words, True) for words in split_commands(block.text)]
    mistakes = []
    for words, is_complete in commands:
        try:
            check(words, is_complete)
        except Mistake as error:
            mistakes.append(f"{' '.join(words)}: {error}")
    for block in blocks:
        if block.language == "python":
            check_code(block.text)
    for span in spans:
        try:
            check_file(mask(span.text))
        except Mistake as error:
            mistakes.append(str(error))
    assert not mistakes


def test_each_option_of_a_sentence_is_one_of_a_command() -> None:
    """Such as `--cameras ignore`, which stands without its command."""
    commands = typer.main.get_command(app).commands.values()
    choices = {option for command in commands for each in command.params for option in each.opts}
    for path in (ROOT / "pipeline").rglob("*.py"):
        choices |= set(re.findall(r'"(--[a-z-]+)"', path.read_text()))
    spans = [span.text for page in PAGES for span in read_page(page)[1]]
    options = {text.split()[0] for text in spans if text.startswith("--")}
    assert len(options) > 8
    assert options <= choices


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("make repo", "make has no target repo"),
        ("make repro ONLY=table9", "experiments/table9.yaml does not exist"),
        ("make search ONLY=table4d", "experiments/search_table4d.yaml does not exist"),
        ("make ui HOST=0.0.0.0", "the Makefile has no HOST"),
        ('make clean ARGS="--older 7 days"', "unrecognized arguments: days"),
        ("python -m pipeline.validate photos", "there is no module pipeline.validate"),
        ("python -m pipeline.ui --host x", "unrecognized arguments: --host x"),
        ("python -m pipeline.import_results", "the following arguments are required"),
        ("python -m pipeline.stages.train synthetic.bass.quick.0", "bass"),
        ("python benchmarks/speed.py", "benchmarks/speed.py does not exist"),
        ("python -c 'import ianet; ianet.lode()'", "ianet has no lode"),
        ("ianet serch model", "no command serch"),
        ("ianet search model photos photos -n 5", "No such option: -n"),
        ("dvc repro table9", "dvc.yaml has no stage table9"),
        ("dvc repro model@photos.stage24.cpu.0", "stage24"),
        ("dvc exp run -S recipes.quick.rate=1 table4d", "params.yaml has no recipes.quick.rate=1"),
        ("dvc gc --older", "unrecognized arguments: --older"),
        ("mlflow model serve", "no command model"),
        ("mlflow models serve -m x --ports 5", "No such option"),
        ("head=$(ray begin) make repro", "no command begin"),
        (
            "tar -c x | docker compose -f deploy/nothing.yaml up",
            "deploy/nothing.yaml does not exist",
        ),
        ("podman build .", "podman is no program"),
    ],
)
def test_a_mistake_in_a_command_is_seen(command: str, mistake: str) -> None:
    first, *_ = split_commands(command)
    *_, last = split_commands(command)
    with pytest.raises(Mistake, match=re.escape(mistake)):
        check(first if first[0] in ("ray", "podman") else last)


# What blocks of YAML and of Python say


def test_yaml_in_documents_is_that_of_the_project() -> None:
    """Entries are valid. Parts of a file of experiments/ stand in the file."""
    [table, _] = find_blocks("docs/experiments.md", "yaml")
    [search] = find_blocks("docs/searches.md", "yaml")
    for block, name in ((table, "table4f"), (search, "search_sigma")):
        part = yaml.safe_load(block.text)
        table_file = yaml.safe_load((ROOT / f"experiments/{name}.yaml").read_text())
        rows = {row["label"]: row for row in table_file.pop("rows", [])}
        for row in part.pop("rows", []):
            row["paper"] = rows[row["label"]]["paper"] | row.get("paper", {})
            assert row == rows[row["label"]]
        part.pop("caption")
        assert part.pop("scheduler", "none") == "none"
        assert part == {key: table_file[key] for key in part}
    entry, *options = find_blocks("docs/data.md", "yaml")
    content = yaml.safe_load(entry.text)
    assert set(content["at_hand"]) <= set(settings().datasets)
    for dataset in content["datasets"].values():
        Dataset.model_validate(dataset)
    assert [set(yaml.safe_load(block.text)) for block in options] == [{"options"}]
    [cluster] = find_blocks("docs/cluster.md", "yaml")
    Cluster.model_validate(yaml.safe_load(cluster.text)["cluster"])


MODULE = "ianet.blocks.centre"


def test_the_block_of_the_documents_is_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/experiments.md: a file and an entry, after two stages, and nothing else."""
    [code] = find_blocks("docs/experiments.md", "python")
    (tmp_path / "centre.py").write_text(code.text)
    monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path)])
    [_, entry] = find_blocks("docs/experiments.md", "yaml")
    options = yaml.safe_load(entry.text)["networks"]["centre"]
    options |= {"backbone": "resnet18"}
    network = Network(5, build_network("centre", options, settings().recipes["pretrain"]))
    block, _ = (each for each in network.modules() if type(each).__module__ == MODULE)
    features = torch.randn(2, 3, 4, 5)
    left = block(features).mean(dim=(2, 3))
    torch.testing.assert_close(left, 0.5 * features.mean(dim=(2, 3)))
    sys.modules.pop(MODULE)
