"""What a run and an evaluation are called, and where their files lie.

A key joins names by dots, which no name holds. So two runs never share a key.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ianet.files import digest_file
from pipeline.config.settings import Settings, SettingsError, check_known

PREPARED = Path("data/prepared")
RUNS = Path("runs")
RESULTS = Path("results")
MODELS = Path("models")
TABLE, DESCRIPTION = "table.parquet", "dataset.json"  # of a prepared data set
WEIGHTS, RECORD, HISTORY = "weights.safetensors", "training.json", "history.csv"  # of a run
MODEL_WEIGHTS = "model.safetensors"  # in the folder of a model, see `ianet.weights`


class Run(NamedTuple):
    """One training."""

    dataset: str
    network: str
    recipe: str
    seed: int

    @property
    def key(self) -> str:
        """The run's name in stages, folders and MLflow: `synthetic.base.quick.0`."""
        return ".".join(map(str, self))

    @property
    def prepared(self) -> Path:
        """The folder that `prepare` writes for the data set."""
        return PREPARED / self.dataset

    @property
    def folder(self) -> Path:
        """The folder that `train` writes."""
        return RUNS / self.key

    @property
    def model(self) -> Path:
        """The folder that `model` writes."""
        return MODELS / self.key

    def weights_digest(self) -> str:
        """SHA-256 of the trained weights, as hexadecimal digits.

        Raises:
            FileNotFoundError: the run was not trained.
        """
        return digest_file(self.folder / WEIGHTS)


def find_start(weights: str) -> str | None:
    """The key of the run whose model initial weights name; None for all other weights.

    Args:
        weights: `models/<key>`, or the file of weights in that folder.
    """
    path = Path(weights)
    if path.name == MODEL_WEIGHTS:
        path = path.parent
    return path.name if path.parent == MODELS else None


class Evaluation(NamedTuple):
    """The scores of a run on a data set: that of its training, or across domains another."""

    run: Run
    on: str

    @property
    def key(self) -> str:
        """The run's key, and across domains the scored data set as a fifth name."""
        return self.run.key if self.is_own else f"{self.run.key}.{self.on}"

    @property
    def is_own(self) -> bool:
        """Whether the data set is that of the training."""
        return self.on == self.run.dataset

    @property
    def scores(self) -> Path:
        """The file of the means over the queries."""
        return RESULTS / self.on / "scores" / f"{self.key}.json"

    @property
    def queries(self) -> Path:
        """The file of the scores of each query."""
        return RESULTS / self.on / "queries" / f"{self.key}.parquet"


def parse_evaluation(key: str, settings: Settings) -> Evaluation:
    """The evaluation with that key.

    Raises:
        SettingsError: params.yaml lacks one of its names, or the text is no key.
    """
    names = key.split(".")
    if len(names) not in (4, 5) or not names[3].isdecimal():
        raise SettingsError(
            f"{key!r} is no key: give <data set>.<network>.<recipe>.<seed>, with names of "
            "params.yaml, such as synthetic.base.quick.0"
        )
    dataset, network, recipe, seed = names[:4]
    on = names[4] if len(names) == 5 else dataset
    for name, section in (
        (dataset, "datasets"), (network, "networks"), (recipe, "recipes"), (on, "datasets"),
    ):  # fmt: skip
        check_known(name, getattr(settings, section), f"key {key}", f"{section} of params.yaml")
    return Evaluation(Run(dataset, network, recipe, int(seed)), on)


def parse_run(key: str, settings: Settings) -> Run:
    """The run with that key.

    Raises:
        SettingsError: as `parse_evaluation`, or the key is that of an evaluation elsewhere.
    """
    run, on = parse_evaluation(key, settings)
    if on != run.dataset:
        raise SettingsError(f"{key!r} names a data set that is scored: a run's key has four names")
    return run


def prepared_files(size: str) -> tuple[str, ...]:
    """The files of a prepared data set that a run needs; `size` is height x width."""
    return TABLE, DESCRIPTION, f"{size}.npy"


def check_prepared(dataset: str, size: str) -> None:
    """Refuse a data set whose images are not there at that size.

    Raises:
        FileNotFoundError: the message says what makes them.
    """
    for name in prepared_files(size):
        if not (path := PREPARED / dataset / name).exists():
            raise FileNotFoundError(
                f"{path} does not exist: `dvc repro pack@{dataset}.{size}` makes it"
            )
