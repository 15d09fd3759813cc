"""Which lines results/runs.csv keeps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.report.run_list import COLUMNS, keep_others


def row(key: str, commit: str = "0012345") -> list[object]:
    dataset, network, recipe, seed = key.split(".")
    return [key, dataset, network, recipe, int(seed), 3, 0.5, 0.25, "ab", commit, "CPU", 0.5]


def test_lines_of_other_data_sets_stay_while_their_scores_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = pd.DataFrame([row("synthetic.base.quick.0", "new")], columns=list(COLUMNS))
    assert keep_others(listed) is listed
    old = ("market1501.base.cpu.0", "market1501.gone.cpu.0", "synthetic.base.quick.0")
    Path("results/market1501/scores").mkdir(parents=True)
    Path("results/market1501/scores/market1501.base.cpu.0.json").touch()
    file = Path("results/runs.csv")
    pd.DataFrame(map(row, old), columns=list(COLUMNS)).to_csv(file, index=False)
    kept = keep_others(listed, file)
    assert kept.key.tolist() == ["market1501.base.cpu.0", "synthetic.base.quick.0"]
    assert kept.commit.tolist() == ["0012345", "new"]  # digits alone stay a text
