"""Draw a data set of synthetic people -> its source, in Market-1501's layout.

python -m pipeline.stages.synthesize synthetic
"""

from __future__ import annotations

from ianet.synthetic import archive
from pipeline.config.settings import PARAMS, SettingsError, load
from pipeline.shell import command, parser


def main() -> None:
    options = parser(__doc__, "pipeline.stages.synthesize")
    options.add_argument("dataset", help="of params.yaml, with sizes under `synthetic`")
    name = options.parse_args().dataset
    settings = load()
    datasets = {key: each for key, each in settings.datasets.items() if each.synthetic is not None}
    if name not in datasets:
        raise SettingsError(
            f"{PARAMS} draws no data set {name!r}: choose from {', '.join(datasets) or 'none'}"
        )
    dataset = datasets[name]
    assert dataset.synthetic is not None
    dataset.source.parent.mkdir(parents=True, exist_ok=True)
    archive.write(dataset.source, **dataset.synthetic.model_dump())


if __name__ == "__main__":
    command(main)
