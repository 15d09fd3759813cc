"""Whether the tests notice rows out of step: wrong programs, each run against the tests that should
fail.

    python benchmarks/mutants.py            # all, in about 10 minutes of a core's time
    python benchmarks/mutants.py pack cell  # those whose names hold one of these words

A mutant is a replaced text in a temporary copy of the project. Prints a table of the mutants, their
tests, and whether a test failed. The exit status is 1 if a mutant survives, if a text to be
replaced does not occur once in its file, or if a test fails in the copy without a mutant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = (
    *("benchmarks", "experiments", "ianet", "pipeline", "tests"),
    *("params.yaml", "pyproject.toml", ".dvc/config", ".dvcignore"),
)
ROWS = "tests/test_glue.py::test_a_row_is_its_picture"
FILES = "tests/test_glue_scores.py::test_scores_are_a_slow_count"
ITSELF = "tests/test_glue_scores.py::test_a_query_is_no_match_of_itself_where_cameras_are_ignored"
CELLS = "tests/test_glue_table.py::test_a_cell_is_of_its_files"
PROJECT = "tests/test_glue_project.py"


class Mutant(NamedTuple):
    """A wrong program.

    Attributes:
        name: what is wrong.
        file: of the text that is replaced.
        old, new: the text, which occurs once, and what replaces the text.
        tests: that should fail, as pytest names them.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def fits(self, project: Path) -> bool:
        """Whether the text occurs once in its file."""
        return (project / self.file).read_text().count(self.old) == 1


MUTANTS = (
    # From the set to the packed array.
    Mutant(
        "pack: rows reversed",
        "pipeline/stages/pack.py",
        ".path.tolist()",
        ".path.tolist()[::-1]",
        ROWS,
    ),
    Mutant(
        "pack: paths sorted, not in the table's order",
        "pipeline/stages/pack.py",
        "read_table(prepared).path.tolist()",
        "sorted(read_table(prepared).path)",
        ROWS,
    ),
    Mutant(
        "pack: images of a task reversed",
        "ianet/packing.py",
        "for path in task:",
        "for path in reversed(task):",
        ROWS,
    ),
    Mutant(
        "pack: height and width exchanged",
        "ianet/packing.py",
        ".resize((width, height)",
        ".resize((height, width)",
        ROWS,
    ),
    Mutant(
        "pack: BGR for RGB",
        "ianet/packing.py",
        "file.write(image.tobytes())",
        "file.write(np.asarray(image)[..., ::-1].tobytes())",
        ROWS,
    ),
    Mutant(
        "pack: images mirrored",
        "ianet/packing.py",
        "file.write(image.tobytes())",
        "file.write(np.asarray(image)[:, ::-1].tobytes())",
        ROWS,
    ),
    Mutant(
        "CUHK03: height and width exchanged",
        "ianet/datasets/cuhk03.py",
        "transpose(2, 1, 0)",
        "transpose(1, 2, 0)",
        ROWS,
    ),
    Mutant(
        "Market-1501: junk kept",
        "ianet/datasets/bounding_boxes.py",
        "if person == JUNK:",
        "if person == JUNK - 1:",
        ROWS,
    ),
    Mutant(
        "MSMT17: test identities not counted on",
        "ianet/datasets/msmt17.py",
        "TEST_FROM + identity",
        "identity",
        ROWS,
    ),
    Mutant(
        "prepare: names numbered from the last row",
        "pipeline/stages/prepare.py",
        "return_inverse=True)[1] + 1",
        "return_inverse=True)[1][::-1] + 1",
        ROWS,
    ),
    Mutant(
        "split: that of the next seed",
        "pipeline/data/splits.py",
        "columns[seed % len(columns)]",
        "columns[(seed + 1) % len(columns)]",
        ROWS,
    ),
    Mutant(
        "split: query and gallery exchanged",
        "pipeline/data/splits.py",
        "return table[split]\n",
        'return table[split].replace({"query": "gallery", "gallery": "query"})\n',
        ROWS,
    ),
    # From the packed array to the files of scores.
    Mutant(
        "scoring: features flipped",
        "pipeline/scoring.py",
        "extract(network, packed, device=device)",
        "extract(network, packed, device=device).flip(0)",
        ROWS,
    ),
    Mutant(
        "scoring: mask of the images a row late",
        "pipeline/scoring.py",
        'PackedImages(prepared / f"{size}.npy", mask)',
        'PackedImages(prepared / f"{size}.npy", np.roll(mask, 1))',
        ROWS,
    ),
    Mutant(
        "scoring: queries without a match keep no place",
        "pipeline/scoring.py",
        "rows = queries.index[cmc.index]",
        "rows = queries.index[: len(cmc)]",
        ROWS,
    ),
    Mutant(
        "scoring: cameras in reverse order",
        "pipeline/scoring.py",
        "cameras[mask].to_numpy()",
        "cameras[mask].to_numpy()[::-1].copy()",
        FILES,
    ),
    Mutant(
        "scoring: a query's own picture is a match where cameras are ignored",
        "pipeline/data/cameras.py",
        "pd.factorize(images.path)[0]",
        "range(len(images))",
        ITSELF,
    ),
    Mutant(
        "scoring: mINP for mAP",
        "ianet/protocols.py",
        '"mAP": "average_precision"',
        '"mAP": "inverse_negative_penalty"',
        FILES,
    ),
    Mutant(
        "scoring: ranks from 0",
        "ianet/protocols.py",
        "np.arange(1, RANKS + 1)",
        "np.arange(0, RANKS)",
        FILES,
    ),
    Mutant(
        "retrieval: the query's camera kept, the others removed",
        "ianet/retrieval.py",
        "self.gallery_camera[same_id] != self.query_camera[queries, None]",
        "self.gallery_camera[same_id] == self.query_camera[queries, None]",
        FILES,
    ),
    Mutant(
        "images: mean in BGR",
        "ianet/images.py",
        "(0.485, 0.456, 0.406)",
        "(0.406, 0.456, 0.485)",
        FILES,
    ),
    # From the files of scores to a cell.
    Mutant(
        "cell: scores of the first row",
        "pipeline/report/cells.py",
        "scores = [results.scores[evaluation] for evaluation in seeds]",
        "scores = [results.scores[evaluation] for evaluation in rows[0][1][: len(seeds)]]",
        CELLS,
    ),
    Mutant(
        "cell: difference's sign",
        "pipeline/report/cells.py",
        "percent.mean() - (nan if printed is None else printed)",
        "(nan if printed is None else printed) - percent.mean()",
        CELLS,
    ),
    Mutant(
        "cell: gain's sign",
        "pipeline/report/cells.py",
        "queries[metric] - results.queries[baseline][metric]",
        "results.queries[baseline][metric] - queries[metric]",
        CELLS,
    ),
    Mutant(
        "cell: gain over the baseline of another seed",
        "pipeline/report/cells.py",
        "baseline = plan.baseline(row, evaluation)\n        queries",
        "baseline = plan.baseline(row, evaluations[0])\n        queries",
        CELLS,
    ),
    Mutant(
        "cell: gain of queries by their place in the file",
        "pipeline/report/cells.py",
        "read_queries(evaluation)",
        "read_queries(evaluation).reset_index(drop=True)",
        CELLS,
    ),
    Mutant(
        "cell: interval of 90 %",
        "ianet/comparison.py",
        "(1 + confidence) / 2",
        "confidence",
        CELLS,
    ),
    Mutant(
        "cell: queries as if independent",
        "pipeline/report/cells.py",
        "axis=1), persons)",
        "axis=1), persons.index)",
        CELLS,
    ),
    Mutant(
        "cell: bounds of the interval exchanged on the page",
        "pipeline/report/cells.py",
        "[{content.gain_low:+z.1f}, {content.gain_high:+z.1f}]",
        "[{content.gain_high:+z.1f}, {content.gain_low:+z.1f}]",
        CELLS,
    ),
    # From the packed array to the weights, by real processes.
    Mutant(
        "training: labels in reverse order",
        "pipeline/training/worker.py",
        "labels_of(table.person[mask].to_numpy())",
        "labels_of(table.person[mask].to_numpy()[::-1])",
        PROJECT,
    ),
    Mutant(
        "training: labels numbered from the last person",
        "ianet/training/batches.py",
        "np.unique(persons, return_inverse=True)",
        "np.unique(-persons, return_inverse=True)",
        PROJECT,
    ),
    Mutant(
        "training: images of the whole set",
        "pipeline/training/worker.py",
        '.npy", mask)',
        '.npy")[-int(mask.sum()) :]',
        PROJECT,
    ),
)


def copy_project(source: Path, target: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / name, target / name, ignore=ignore)
        else:
            shutil.copy(source / name, target / name)


def run_tests(folder: Path, *tests: str) -> tuple[int, str]:
    """pytest's exit status and output, up to the first failure."""
    options = ("--exitfirst", "--tb=line", "-rf", "-p", "no:cacheprovider")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process.returncode, process.stdout


def is_caught(mutant: Mutant, project: Path) -> bool:
    """Whether a test fails in a copy of the project with the mutant's text.

    An error in a fixture is no failure.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy_project(project, Path(folder))
        path = Path(folder) / mutant.file
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
        _, output = run_tests(Path(folder), mutant.tests)
    return "\nFAILED " in output


def catch(mutants: Sequence[Mutant], project: Path) -> None:
    """Print the table, and end the program where something is wrong.

    Args:
        mutants: to be tried.
        project: a copy, which does not change meanwhile.
    """
    for mutant in mutants:
        if not mutant.fits(project):
            sys.exit(
                f"{mutant.file} does not hold {mutant.old!r} once: edit mutant {mutant.name!r}"
            )
    status, output = run_tests(project, *dict.fromkeys(mutant.tests for mutant in mutants))
    if status:
        sys.exit(f"{output}\nthe tests fail without a mutant: mend them first")
    survivors = 0
    print("| mutant | tests | caught |\n|---|---|---|")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(partial(is_caught, project=project), mutants)
        for mutant, caught in zip(mutants, results, strict=True):
            tests = mutant.tests.removeprefix("tests/")
            print(f"| {mutant.name} | {tests} | {'yes' if caught else 'NO'} |", flush=True)
            survivors += not caught
    if survivors:
        sys.exit(f"{survivors} of {len(mutants)} mutants survive: add the tests that are missing")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("words", nargs="*", help="of the mutants' names; all by default")
    words = options.parse_args().words
    mutants = [
        mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)
    ]
    if not mutants:
        options.error(f"no name of a mutant holds one of {', '.join(words)}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_project(ROOT, Path(folder))
        catch(mutants, Path(folder))


if __name__ == "__main__":
    main()
