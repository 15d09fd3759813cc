"""Draw the synthetic benchmark -> data/synthetic.zip, in Market-1501's layout."""

from __future__ import annotations

from ianet.synthetic import archive
from pipeline.config.settings import load
from pipeline.plan.plan import SYNTHETIC
from pipeline.shell import command, parser


def main() -> None:
    parser(__doc__, "pipeline.stages.synthesize").parse_args()
    SYNTHETIC.parent.mkdir(exist_ok=True)
    archive.write(SYNTHETIC, **load().synthetic.model_dump())


if __name__ == "__main__":
    command(main)
