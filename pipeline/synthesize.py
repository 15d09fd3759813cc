"""Draw the synthetic benchmark -> data/synthetic.zip, in Market-1501's layout."""

from __future__ import annotations

from ianet.datasets import synthetic
from pipeline.plan import SYNTHETIC
from pipeline.settings import load
from pipeline.shell import stage


def main() -> None:
    SYNTHETIC.parent.mkdir(exist_ok=True)
    synthetic.write(SYNTHETIC, **load().synthetic.model_dump())


if __name__ == "__main__":
    with stage():
        main()
