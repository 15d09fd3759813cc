"""What computes a training: a worker of Ray Train, or a trial of Ray Tune.

Ray Train's controller imports this file too. So torch and all that needs torch is imported where a
training begins.
"""

from __future__ import annotations

import io
import json
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.training.configuration import Configuration, Place
from pipeline.training.progress import ProgressWriter, Report

if TYPE_CHECKING:
    import torch

STATE, HISTORY, ENVIRONMENT = "state.pt", "history.json", "environment.json"  # of a checkpoint
NETWORK = "network.json"  # of the last checkpoint, with the weights
COLUMNS = ("epoch", "loss", "triplet", "accuracy", "lr", "seconds", "images_per_second", "bits")
PACKAGES = ("torch", "torchvision", "ray")


class Training:
    """A training in this process: its images and network, and the epochs that remain.

    Attributes:
        history: a report of each epoch that is done, with the names of `COLUMNS`.
    """

    def __init__(
        self,
        configuration: Configuration,
        place: Place,
        checkpoint: Path | None,
        *,
        compile_blocks: bool,
    ) -> None:
        """
        Args:
            configuration: what is trained.
            place: where its data lies.
            checkpoint: folder that `save` wrote, from which the training resumes.
            compile_blocks: whether blocks are compiled, where there is a GPU.

        Raises:
            ValueError: options that do not fit each other, or the data.
            OSError: data or weights that cannot be read.
        """
        import pandas as pd
        import torch

        from ianet import images
        from ianet.network import Network
        from ianet.training.batches import labels_of
        from pipeline.data.splits import split_of_run
        from pipeline.plan.runs import TABLE

        torch.set_num_threads(place.threads)
        torch.set_flush_denormal(True)  # see docs/performance.md
        self.configuration = configuration
        self.prepared = Storage(place.storage).fetch(place.prepared)
        table = pd.read_parquet(self.prepared / TABLE)
        self.split = split_of_run(table, configuration.seed, hold_out=configuration.hold_out)
        mask = (self.split == "train").to_numpy(copy=True)
        self.labels = labels_of(table.person[mask].to_numpy())
        torch.manual_seed(configuration.seed)
        self.network = Network(int(self.labels.max()) + 1, configuration.network)
        if compile_blocks:
            self.network.compile_blocks()
        self.images = images.load(self.prepared / f"{configuration.size}.npy", mask)
        self.state: dict[str, Any] | None = None
        self.history: list[Report] = []
        if checkpoint is not None:
            # Not to the device of the worker that saved the state: each has a device of its own.
            path = checkpoint / STATE
            self.state = torch.load(path, map_location="cpu", weights_only=True)
            self.history = json.loads((checkpoint / HISTORY).read_text())

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
            state=self.state,
            on_batch=lambda _, part: on_part(part),
        ):
            self.state = epoch.state
            report = {name: getattr(epoch, name) for name in COLUMNS}
            self.history.append(report)
            yield report

    @property
    def is_done(self) -> bool:
        """Whether no epoch remains."""
        return len(self.history) == self.configuration.recipe.epochs

    def save(self, folder: Path) -> None:
        """Write a checkpoint.

        Raises:
            OSError: the disk is full; the message names the machine.
        """
        import torch

        # torch itself would not report a full disk.
        buffer = io.BytesIO()
        torch.save(self.state, buffer)
        try:
            (folder / STATE).write_bytes(buffer.getbuffer())
            (folder / HISTORY).write_text(json.dumps(self.history))
        except OSError as error:
            where = f"{socket.gethostname()}:{folder / STATE}"
            raise OSError(error.errno, error.strerror, where) from error


def train_on_worker(config: dict[str, Any]) -> str | None:
    """Train under Ray Train, and report each epoch with a checkpoint.

    Args:
        config: "configuration", "place" and "name", the folder of the training in the storage.

    Returns:
        A mistake of the user's, found before the training began. Ray Train would try the same
        again and again if it were raised.
    """
    import ray.train
    import ray.train.torch

    from ianet.network import save

    context = ray.train.get_context()
    workers, first = context.get_world_size(), context.get_world_rank() == 0
    place: Place = config["place"]
    checkpoint = ray.train.get_checkpoint()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(checkpoint.to_directory(folder)) if checkpoint else None
            # As measured: compiled blocks were not tried with several workers.
            training = Training(config["configuration"], place, path, compile_blocks=workers == 1)
    except ValueError as error:
        return str(error)
    progress = ProgressWriter(Storage(place.storage), TRAININGS, config["name"])

    def show(part: float) -> None:
        if first:
            progress.write_seldom({"history": training.history, "part": part})

    device = ray.train.torch.get_device()
    for report in training.epochs(device, show):
        if not first:
            ray.train.report(report)
            continue
        # Before the checkpoint: a training with its last checkpoint has shown its last epoch.
        progress.write({"history": training.history, "part": 0.0})
        with tempfile.TemporaryDirectory() as folder:
            training.save(Path(folder))
            if training.is_done:
                save(training.network, Path(folder))
                environment = describe_environment(device, workers, place.threads)
                (Path(folder) / ENVIRONMENT).write_text(json.dumps(environment))
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))
    return None


def describe_environment(device: torch.device, workers: int, threads: int) -> dict[str, Any]:
    """Versions and machine of a training, which may move its result as another seed does."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": name,
        "workers": workers,
        "threads": threads,
    }
