"""What computes a training: a task of Ray, workers of Ray Train, or a trial of Ray Tune.

The command that leads a training imports this file too. So torch and all that needs torch is
imported where a training begins.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.config.settings import SettingsError
from pipeline.failures import CodeError, code_errors
from pipeline.training.checkpoints import Checkpoints, State
from pipeline.training.configuration import Configuration, Place
from pipeline.training.progress import ProgressWriter, Report

if TYPE_CHECKING:
    import torch

COLUMNS = ("epoch", "loss", "triplet", "accuracy", "lr", "seconds", "images_per_second", "bits")
BLOCK_IMAGES = 8  # of the training in which blocks are described after each epoch
FAILURE = "failure.json"  # of workers, which the next ones would only repeat
PACKAGES = ("torch", "torchvision", "ray")


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Attributes:
        history: a report of each epoch.
        environment: see `describe_environment`.
        files: the content of the weights file and of the network's description, by name.
    """

    history: list[Report]
    environment: dict[str, Any]
    files: dict[str, bytes]

    def write_network(self, folder: Path) -> None:
        """Write the weights and the description to a folder."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


class Training:
    """A training in this process: its images and network, and the epochs that remain.

    Attributes:
        history: a report of each epoch that is done, with the names of `COLUMNS`.
    """

    def __init__(
        self,
        configuration: Configuration,
        place: Place,
        state: State | None,
    ) -> None:
        """
        Args:
            configuration: what is trained.
            place: where its data lies.
            state: from which the training resumes.

        Raises:
            ValueError: options that do not fit each other, or the data.
            OSError: data or weights that cannot be read.
        """
        import torch

        from ianet.network import Network
        from ianet.reading import PackedImages
        from ianet.training.batches import labels_of
        from pipeline.data.splits import split_of_run
        from pipeline.plan.records import read_table

        # The compiler's code is kept between runs.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache_path("ianet") / "code"))
        torch.set_num_threads(place.share.cpus)
        self.configuration = configuration
        storage = Storage(place.storage)
        self.prepared = storage.fetch(place.prepared)
        options = configuration.network
        if place.weights is not None:
            folder, name = place.weights
            options = replace(options, weights=str(storage.fetch(folder) / name))
        table = read_table(self.prepared)
        self.split = split_of_run(table, configuration.seed, hold_out=configuration.hold_out)
        mask = (self.split == "train").to_numpy(copy=True)
        self.labels = labels_of(table.person[mask].to_numpy())
        torch.manual_seed(configuration.seed)
        self.network = Network(int(self.labels.max()) + 1, options)
        self.images = PackedImages(self.prepared / f"{configuration.size}.npy", mask)
        self.fit_state: dict[str, Any] | None = state["fit"] if state else None
        self.history: list[Report] = state["history"] if state else []

    def epochs(self, device: torch.device, on_part: Callable[[float], None]) -> Iterator[Report]:
        """Train, and yield the report of each epoch.

        Args:
            device: of this worker.
            on_part: receives the fraction of an epoch that is done, after each batch.
        """
        from ianet.training.fit import fit

        for epoch in fit(
            self.network,
            self.images,
            self.labels,
            self.configuration.recipe,
            seed=self.configuration.seed,
            device=device,
            state=self.fit_state,
            on_batch=lambda _, part: on_part(part),
        ):
            self.fit_state = epoch.state
            report = {name: getattr(epoch, name) for name in COLUMNS}
            self.history.append(report)
            yield report

    def describe_blocks(self) -> dict[str, float]:
        """What each inserted block does in the first training images, for the report.

        The names are those of `ianet.diagnostics.BlockDescription`, below that of the block.
        """
        from ianet.diagnostics import describe_blocks

        if not self.network.blocks:
            return {}
        blocks = describe_blocks(self.network, self.images[:BLOCK_IMAGES])
        return {
            f"{block.name}.{name}": value
            for block in blocks
            for name, value in asdict(block).items()
            if name != "name" and value is not None
        }

    @property
    def is_done(self) -> bool:
        """Whether no epoch remains."""
        return len(self.history) == self.configuration.recipe.epochs

    @property
    def state(self) -> State:
        """From which the training resumes; it refers to the live weights."""
        return {"fit": self.fit_state, "history": self.history}


def train(
    configuration: Configuration,
    place: Place,
    name: str,
    *,
    rank: int = 0,
    workers: int = 1,
    device: torch.device | None = None,
) -> Result | None:
    """Train, write the progress and checkpoints, and return the result, as the first worker.

    The training resumes from the last checkpoint of its name.

    Args:
        configuration: what is trained.
        place: where its data lies.
        name: folder of the training in the storage.
        rank, workers: this worker's number, and how many there are.
        device: of this worker; by default the GPU that Ray gives, or the CPU without one.

    Returns:
        None from all workers but the first.

    Raises:
        ValueError: options that do not fit each other or the data, or damaged checkpoints.
        OSError: data, weights or the storage cannot be used.
    """
    import torch

    from ianet.network import save

    storage = Storage(place.storage)
    checkpoints = Checkpoints(storage, name, place.checkpoint_minutes)
    state, warnings = checkpoints.read()
    training = Training(configuration, place, state)
    progress = ProgressWriter(storage, TRAININGS, name)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def content(part: float) -> dict[str, Any]:
        return {
            "history": training.history,
            "part": part,
            "warnings": warnings,
            "node": platform.node(),
        }

    def show(part: float) -> None:
        if rank == 0:
            progress.write_seldom(content(part))

    for report in training.epochs(device, show):
        if rank == 0:
            report |= training.describe_blocks()
            # Before the checkpoint: a training with its last checkpoint has shown its last epoch.
            progress.write(content(0.0))
            checkpoints.write(training.state, report["epoch"], last=training.is_done)
    if rank:
        return None
    checkpoints.finish()
    with tempfile.TemporaryDirectory() as folder:
        recipe = configuration.recipe
        save(
            training.network,
            Path(folder),
            dataset=configuration.dataset,
            height=recipe.height,
            width=recipe.width,
        )
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return Result(training.history, describe_environment(device, workers, place.share.cpus), files)


def train_alone(configuration: Configuration, place: Place, name: str) -> Result | None:
    """Train as the only worker.

    Args:
        configuration, place, name: see `train`.

    Raises:
        CodeError: Python code failed, as of a block.
        ValueError, OSError: see `train`.
    """
    with code_errors():
        return train(configuration, place, name)


def train_together(arguments: dict[str, Any]) -> Result | Exception | None:
    """Train as one of several workers of Ray Train.

    Args:
        arguments: the first three of `train`.

    Returns:
        From the first worker the result, or the error that ended the workers before these.

    Raises:
        CodeError: Python code failed, as of a block.
        ValueError, OSError: see `train`. After any error Ray Train ends all workers and starts
            them again. The new ones train only after an `OSError`.
    """
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    storage, folder = Storage(arguments["place"].storage), (TRAININGS, arguments["name"])
    if failure := storage.read(*folder, FAILURE):
        reason, text = json.loads(failure)
        return CodeError(reason, text) if text else SettingsError(reason)
    try:
        with code_errors():
            return train(
                **arguments,
                rank=context.get_world_rank(),
                workers=context.get_world_size(),
                device=ray.train.torch.get_device(),
            )
    except (CodeError, ValueError) as error:
        text = error.text if isinstance(error, CodeError) else None
        storage.write(json.dumps([str(error), text]).encode(), *folder, FAILURE)
        raise


def import_all() -> None:
    """Import what a training needs, in a process that serves the training later."""
    import torch

    for module in ("pandas", "ianet.network", "ianet.training.fit", "ianet.diagnostics"):
        importlib.import_module(module)
    torch.optim.Adam([torch.zeros(1)])  # the first optimizer imports torch's compiler


def find_processor() -> str:
    """The name of the processor, or its architecture where Linux does not tell the name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def describe_environment(device: torch.device, workers: int, threads: int) -> dict[str, Any]:
    """Versions and machine of a training, which may move its result as another seed does."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else find_processor()
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": name,
        "workers": workers,
        "threads": threads,
    }
