"""Draw the synthetic benchmark -> data/synthetic.zip, in Market-1501's layout."""

from __future__ import annotations

from pathlib import Path

from ianet.datasets import synthetic
from pipeline.settings import load
from pipeline.shell import stage

TARGET = Path("data/synthetic.zip")


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    synthetic.write(TARGET, **load().synthetic.model_dump())


if __name__ == "__main__":
    with stage():
        main()
