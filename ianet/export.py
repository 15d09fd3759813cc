"""A model as one file for other runtimes: ONNX, or torch's own format, pt2.

The file takes pixels and gives features, as `Model.embed` does after decoding and resizing:

    images    (batch, height, width, 3) uint8, RGB, resized to the size of the model
    features  (batch, D) float32, to be compared by the cosine

The batch may be of any size. The mean and the deviation of the pixels are in the file. So are the
identity of the model and what must be done before: see `describe`.
"""

from __future__ import annotations

import io
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ianet.feature_table import FeatureTable
from ianet.files import build_whole
from ianet.images import normalize
from ianet.model import Model
from ianet.options import refuse_unknown
from ianet.pictures import Picture, read_batches

Format = Literal["onnx", "pt2"]
INPUT, OUTPUT, BATCH = "images", "features", "batch"
METADATA = "ianet.json"  # in a pt2 file
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST_DIFFERENCE = 1e-4
"""Limit of the difference between a feature of an exported file and of its model, in float32."""
REPEATS = 10  # of a batch that is timed

Runner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels, (B, H, W, 3), to features, (B, D)."""


class PixelNetwork(nn.Module):
    """A network in evaluation mode that takes pixels, (B, H, W, 3) uint8, and gives float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(normalize(images))
        return features.float()


def describe(model: Model) -> dict[str, str]:
    """Return what the user of an exported file needs to know, by name."""
    size, features = model.description.input, model.description.features
    return {
        "model": model.identity.name,
        "digest": f"sha256:{model.identity.digest}",
        "input": (
            f"{INPUT}: ({BATCH}, {size.height}, {size.width}, 3) uint8, {size.channels}, resized "
            f"to height {size.height} and width {size.width} ({size.resize})"
        ),
        "output": f"{OUTPUT}: ({BATCH}, {features.size}) float32",
        "distance": features.distance,
        "terms": model.description.terms,
    }


def export(model: Model, path: Path, form: Format) -> None:
    """Write a model as ONNX or pt2; the file appears whole or not at all.

    Raises:
        ValueError: an unknown form, ONNX without its packages, or a block that cannot be exported.
    """
    refuse_unknown("form", form, get_args(Format))
    if form == "onnx":
        check_packages()
    size = model.description.input
    # A copy, as a network that has embedded pictures is channels last, which pt2 does not take.
    copy = deepcopy(model.network).cpu().to(memory_format=torch.contiguous_format)
    network = PixelNetwork(copy.requires_grad_(False)).eval()
    program = trace(network, torch.zeros(2, size.height, size.width, 3, dtype=torch.uint8))
    with build_whole(path) as temporary:
        if form == "onnx":
            temporary.write_bytes(to_onnx(program, describe(model)))
        else:
            stream = io.BytesIO()
            extra = {METADATA: json.dumps(describe(model), indent=2)}
            torch.export.save(program, stream, extra_files=extra)
            temporary.write_bytes(stream.getvalue())


def check_packages() -> None:
    """Raise ValueError with what to do, unless the packages for ONNX are there."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install {' '.join(PACKAGES)}")


def trace(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return a module as a graph of operations, for batches of any size.

    Args:
        module: in evaluation mode, that takes one tensor.
        example: of the input, of 2 or more in a batch.

    Raises:
        ValueError: the module cannot be followed, such as one that depends on values; one line.
    """
    try:
        with torch.no_grad():
            return torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH)},)
            )
    except Exception as error:  # of many types
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"the network cannot be exported ({reason}): torch.export does not follow one of its "
            "blocks"
        ) from error


def to_onnx(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    """Return a graph of operations as an ONNX file, with metadata in it."""
    import onnx

    with _quiet():
        result = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            verbose=False,
        )
    assert result is not None
    proto = result.model_proto
    onnx.helper.set_model_props(proto, metadata)
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = metadata.get({INPUT: "input", OUTPUT: "output"}[value.name], "")
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notes of onnxscript's optimizer, one for each operation, from the terminal."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def open_exported(path: Path) -> Runner:
    """Return a function that runs an exported file on a CPU.

    Args:
        path: of a file that `export` wrote, .onnx or .pt2.
    """
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.asarray(session.run([OUTPUT], {INPUT: pixels})[0], np.float32)

        return run
    return _as_runner(torch.export.load(path).module())


def open_model(model: Model) -> Runner:
    """Return a function that runs a model on a CPU, as an exported file is run."""
    return _as_runner(PixelNetwork(model.network.cpu()).eval())


def _as_runner(network: nn.Module) -> Runner:
    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            features: NDArray[np.float32] = network(torch.from_numpy(pixels)).numpy()
        return features

    return run


def embed_exported(
    run: Runner, model: Model, pictures: Sequence[Picture], batch: int
) -> Iterator[FeatureTable]:
    """Yield the features that an exported file gives for each batch of pictures.

    Args:
        run: the file.
        model: that the file is of.
        pictures: all of which can be decoded.
        batch: pictures of one forward pass.
    """
    size = (model.description.input.height, model.description.input.width)
    for pixels in read_batches(pictures, size, batch):
        yield FeatureTable(
            run(pixels.pixels),
            [picture.path for picture in pixels.pictures],
            [picture.person for picture in pixels.pictures],
            [picture.camera for picture in pixels.pictures],
            model.identity,
        )


class Speed(NamedTuple):
    """How fast a batch is computed.

    Attributes:
        batch: its size.
        latency: the median time of a batch, in seconds.
    """

    batch: int
    latency: float

    @property
    def images_per_second(self) -> float:
        return self.batch / self.latency


def measure(
    run: Runner, model: Model, pictures: Sequence[Picture], batches: Iterable[int]
) -> list[Speed]:
    """Return the speed at each size of batch, without decoding.

    Args:
        run: computes features.
        model: whose size the pictures get.
        pictures: that are repeated where they are fewer than a batch.
        batches: the sizes.
    """
    size = (model.description.input.height, model.description.input.width)
    [examples] = read_batches(pictures, size, len(pictures))
    speeds = []
    for batch in batches:
        pixels = np.resize(examples.pixels, (batch, *examples.pixels.shape[1:]))
        run(pixels)  # the first batch of a size takes longer
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            run(pixels)
            times.append(time.perf_counter() - start)
        speeds.append(Speed(batch, statistics.median(times)))
    return speeds


def find_difference(table: FeatureTable, other: FeatureTable) -> float:
    """Return the largest absolute difference of a feature of two tables of the same pictures."""
    return float(np.abs(table.features - other.features).max())
