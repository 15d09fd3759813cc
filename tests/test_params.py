"""params.yaml keeps its comments and its form where DVC writes it (`dvc exp run -S`)."""

from __future__ import annotations

import shutil
from difflib import ndiff
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

PARAMS = Path("params.yaml")


def changes(override: str, folder: Path) -> list[str]:
    """The lines that an override removes (-) and adds (+), without their indentation."""
    copy = folder / PARAMS.name
    shutil.copy(PARAMS, copy)
    apply_overrides(copy, [override])
    lines = ndiff(PARAMS.read_text().splitlines(), copy.read_text().splitlines())
    return [line[0] + line[1:].strip() for line in lines if line[0] in "+-"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("workers=auto", []),
        ("recipes.quick.training.lr=0.002", ["-lr: 7.0e-4", "+lr: 0.002"]),
        ("datasets.synthetic.seeds=[0,1]", ["+- 1"]),
        ("datasets.synthetic.held_out=30", ["-held_out: 20", "+held_out: 30"]),
        ("recipes.strong.training.milestones=[40,60]", ["-- 70", "+- 60"]),
        ("at_hand=[synthetic,market1501]", ["+- market1501"]),
        (
            "networks.stage3.after.stage3.sigma=[2,4]",
            [
                "-after: {stage3: {sigma: [5, 10]}}",
                "+after: {stage3: {sigma: [2, 4]}}",
            ],
        ),
        (
            "cluster.storage=/shared",
            [
                "-cluster: {address: null, storage: null}",
                "+cluster: {address: null, storage: /shared}",
            ],
        ),
    ],
)
def test_an_override_changes_only_its_own_lines(
    override: str, expected: list[str], tmp_path: Path
) -> None:
    lines = [line.partition("  #")[0].rstrip() for line in changes(override, tmp_path)]
    assert lines == expected
