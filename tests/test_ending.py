"""How a command that makes results ends: its page, and the committed files that differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import ending, repro
from pipeline.ending import explain_end
from pipeline.plan.plan import Plan, load_plan
from pipeline.plan.runs import Run
from pipeline.repro import Job
from pipeline.search import __main__ as search

PAGE = (sys.executable, "-m", "pipeline.stages.report")
CHANGES = (
    "committed files that differ now: 4. `git diff --stat HEAD -- results dvc.yaml dvc.lock "
    "searches` lists them, `git restore results dvc.yaml dvc.lock searches` takes them back\n"
)
NEW = (
    "new files below results: 2. `git add results` keeps them for a commit. `git clean -nd "
    "results` lists what `git clean -fd results` would delete\n"
)
FILES = ("results/a.csv", "dvc.yaml", "dvc.lock", "searches/dvc.lock")
NEW_FILES = ("results/new/scores/a.b.c.0.json", "results/new/scores/a.b.c.1.json")


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Committed files of a repository, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    paths = [Path(name) for name in FILES]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("before")
    git = ("git", "-c", "user.name=n", "-c", "user.email=e")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "first")):
        subprocess.run([*git, *command], check=True)
    return paths


@pytest.fixture
def commands(committed: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that are started; DVC changes the committed files, and fails."""
    calls: list[tuple[str, ...]] = []

    def call(*words: str) -> None:
        calls.append(words)
        if "dvc" in words:
            for path in committed:
                path.write_text("after")
            sys.exit(3)

    for module in (ending, repro, search):
        monkeypatch.setattr(module, "run_command", call)
    return calls


def end_by(error: BaseException) -> None:
    with explain_end():
        for name in FILES:
            Path(name).write_text("after")
        raise error


@pytest.mark.parametrize(
    ("error", "pages"),
    [(SystemExit("error: 1 of 2 runs failed"), [PAGE]), (KeyboardInterrupt(), [])],
)
def test_work_that_fails_or_is_stopped_names_its_changes(
    error: BaseException,
    pages: list[tuple[str, ...]],
    commands: list[tuple[str, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(type(error)):
        end_by(error)
    assert commands == pages
    assert capsys.readouterr().out == CHANGES
    subprocess.run(CHANGES.split("`")[3].split(), check=True)  # as the line says
    assert [Path(name).read_text() for name in FILES] == ["before"] * 4


def test_new_files_of_results_are_told_and_deleted_as_told(
    committed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Git holds none of the new files, so that no `git restore` takes them back."""
    Path(".gitignore").write_text("/results/report.html\n")
    with explain_end():
        for name in (*NEW_FILES, "results/report.html", "notes.txt"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("new")
    assert capsys.readouterr().out == NEW
    _, _, _, listing, _, deletion, _ = NEW.split("`")
    listed = subprocess.run(listing.split(), check=True, capture_output=True, text=True).stdout
    assert listed == "Would remove results/new/\n"
    subprocess.run(deletion.split(), check=True)
    assert not Path("results/new").exists()
    left = ("results/report.html", "notes.txt", *FILES)
    assert all(Path(name).exists() for name in left)


def test_new_files_of_earlier_work_are_told_once(
    committed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (Path(name) for name in NEW_FILES)
    first.parent.mkdir(parents=True)
    first.write_text("of an earlier command")
    with explain_end():
        pass
    assert capsys.readouterr().out == ""
    with explain_end():
        second.write_text("new")
    assert capsys.readouterr().out == NEW.replace("results: 2.", "results: 1.")


def test_changes_and_new_files_are_told_by_a_line_each(
    committed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with explain_end():
        for name in (*FILES, *NEW_FILES):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("after")
    assert capsys.readouterr().out == CHANGES + NEW


def test_work_that_changes_nothing_says_nothing(
    committed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with explain_end():
        pass
    assert capsys.readouterr().out == ""


def test_a_page_that_cannot_be_made_hides_no_error(
    committed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "run_command", lambda *words: sys.exit(1))
    with pytest.raises(SystemExit, match="2 of 2 runs failed"), explain_end():
        sys.exit("error: 2 of 2 runs failed")


def test_a_search_that_fails(
    commands: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["search", "sigma"])
    monkeypatch.setattr(search, "load_plan", lambda: SimpleNamespace(search=lambda name: None))
    monkeypatch.setattr(search, "render", lambda plan: {})
    with pytest.raises(SystemExit) as error:
        search.main()
    assert error.value.code == 3
    assert [words[1:3] for words in commands] == [("-m", "dvc"), PAGE[1:]]
    assert commands[0][-1] == "searches/dvc.yaml:search@sigma"
    assert capsys.readouterr().out == CHANGES


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan()


@pytest.mark.parametrize("fails", ["run", "table"])
def test_a_reproduction_that_fails(
    fails: str,
    plan: Plan,
    commands: list[tuple[str, ...]],
    committed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of table4f fails, and market1501 is made all the same; or the tables fail."""
    job = Job(Run("synthetic", "base", "quick", 0), [], 1)

    def train(*_: Any) -> list[Job]:
        for path in committed:
            path.write_text("after")
        return [job] if fails == "run" else []

    monkeypatch.setattr(sys, "argv", ["repro", "table4f", "market1501"])
    monkeypatch.setattr(repro, "load_plan", lambda: plan)
    for name in ("prepare", "write"):
        monkeypatch.setattr(repro, name, lambda _: None)
    monkeypatch.setattr(repro, "find_stale_stages", lambda: {f"train@{job.run.key}"})
    monkeypatch.setattr(repro, "run_stale", train)
    with pytest.raises(SystemExit) as error:
        repro.main()
    if fails == "run":
        assert str(error.value.code).startswith("error: 1 of ")
        assert commands == [(*repro.DVC, "repro", "--quiet", "market1501"), PAGE]
    else:
        assert error.value.code == 3
        assert commands == [(*repro.DVC, "repro", "--quiet", "table4f", "market1501"), PAGE]
    assert capsys.readouterr().out.endswith(CHANGES)


def test_results_of_runs_that_failed_wait(plan: Plan) -> None:
    """The ranked lists show base. too; Table 4d's rows have other networks beside base."""
    jobs = [Job(Run("synthetic", "cia", "quick", 0), [], 1)]
    names = ["table4d", "table4f", "ranks", "cost", "market1501"]
    assert repro.find_results_without(jobs, plan, names) == [
        "table4f",
        "ranks",
        "cost",
        "market1501",
    ]
    jobs = [Job(Run("synthetic", "base", "quick", 0), [], 1)]
    assert repro.find_results_without(jobs, plan, names) == ["cost", "market1501"]


@pytest.mark.parametrize("page", [True, False])
def test_where_nothing_is_to_do_a_page_that_lacks_is_made(
    page: bool,
    plan: Plan,
    commands: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if page:
        repro.REPORT.write_text("")
    monkeypatch.setattr(repro, "find_stale_stages", lambda: set())
    repro.reproduce(plan, ["table4f"])
    assert commands == ([] if page else [PAGE])
