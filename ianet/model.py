"""A model: a folder that explains itself, and the features that it gives for pictures.

    model = ianet.load("models/market1501.stage2.paper.0")
    table = model.embed("photos")
    table.features, table.paths

A folder holds `model.safetensors`, `config.json` (see `ianet.model_description`) and a card,
`README.md`. The folder that a training writes, see `ianet.network.save`, becomes a model by
`save_model`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path, PurePosixPath

import torch

from ianet.datasets.source import Files, open_source
from ianet.description import Description, parse_description, write_description
from ianet.feature_table import FeatureTable, Identity, concatenate
from ianet.features import Precision, extract_batches
from ianet.files import build_whole, check_place
from ianet.model_description import ModelDescription, ModelScores, write_card
from ianet.network import DESCRIPTION as RUN
from ianet.network import Network, TrainedNetwork, restore, serialize
from ianet.pictures import Batch, Images, Labels, Picture, find_pictures, read_batches

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
EXPECTED = f"a model: a folder, or a zip of a folder, with {CONFIG} and {WEIGHTS}"
REMEDY = "fetch or make the model again"
CONFIG_BYTES, WEIGHTS_BYTES = 2**20, 2**30  # at most: several times what the largest model has


class Model:
    """A model that is ready to embed pictures.

    Attributes:
        network: in evaluation mode.
        description: what the folder says.
        identity: name and digest. The digest is of the weights, the input, the features and the
            options of the network, so that a calibration does not change it.
    """

    def __init__(
        self, network: TrainedNetwork, description: ModelDescription, weights: bytes
    ) -> None:
        self.network = network
        self.description = description
        self.identity = Identity(description.name, digest(description, weights))

    def embed(
        self,
        images: Images,
        *,
        labels: Labels = "names",
        batch: int = 64,
        device: str = "auto",
        precision: Precision = "float32",
        flip: bool = False,
        skip_bad: bool = False,
    ) -> FeatureTable:
        """Return the features of pictures of any size.

        Pictures are decoded and resized as the images of the training were. Threads decode ahead.

        Args:
            images: a path of a picture, a folder, an archive or a list file; the bytes of a file;
                a picture of Pillow; an array or tensor (H, W, 3) or (N, H, W, 3) of uint8, RGB; or
                several of these. See `ianet.pictures.find_pictures`.
            labels: where persons and cameras come from, see `ianet.pictures.find_pictures`.
            batch: pictures of one forward pass.
            device: "auto" (a GPU if there is one), or a device of torch.
            precision: "bfloat16" is faster on a GPU.
            flip: whether to average with the features of the mirrored picture.
            skip_bad: whether a picture that cannot be decoded is listed in `skipped`; otherwise it
                is an error.

        Raises:
            FileNotFoundError, TypeError: as `find_pictures`.
            ValueError: a picture that cannot be decoded, features that are not finite or too large
                to be compared, a wrong option, or as `find_pictures`; one line.
        """
        pictures = find_pictures(images, labels)
        return concatenate(
            self.embed_batches(
                pictures,
                batch=batch,
                device=device,
                precision=precision,
                flip=flip,
                skip_bad=skip_bad,
            )
        )

    def embed_batches(
        self,
        pictures: list[Picture],
        *,
        batch: int = 64,
        device: str = "auto",
        precision: Precision = "float32",
        flip: bool = False,
        skip_bad: bool = False,
    ) -> Iterator[FeatureTable]:
        """Yield the features of each batch, for more features than fit in memory; see `embed`."""
        if batch < 1:
            raise ValueError(f"batch is {batch}: it must be 1 at least")
        size = (self.description.input.height, self.description.input.width)
        batches: list[Batch] = []  # that the network has taken, and whose features are to come

        def pixels() -> Iterator[torch.Tensor]:
            for each in read_batches(pictures, size, batch):
                if each.skipped and not skip_bad:
                    path, reason = next(iter(each.skipped.items()))
                    raise ValueError(
                        f"{path} cannot be decoded ({reason}): replace the picture, or skip "
                        "pictures that are bad (--skip-bad)"
                    )
                batches.append(each)
                yield torch.from_numpy(each.pixels)

        for features in extract_batches(
            self.network, pixels(), device=find_device(device), precision=precision, flip=flip
        ):
            done = batches.pop()
            is_finite = torch.linalg.vector_norm(features, dim=1).isfinite()
            if not is_finite.all():
                path = done.pictures[int(is_finite.int().argmin())].path
                raise ValueError(
                    f"the features of {path} are not finite or too large: the weights of the model "
                    f"{self.identity.name} are damaged, so {REMEDY}"
                )
            yield FeatureTable(
                features.cpu().numpy(),
                [picture.path for picture in done.pictures],
                [picture.person for picture in done.pictures],
                [picture.camera for picture in done.pictures],
                self.identity,
                done.skipped,
                flip,
            )


def find_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one.

    Raises:
        ValueError: torch knows no such device, or it is absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # the device meta has no values
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}): take auto or cpu") from error
    return device


def digest(description: Description, weights: bytes) -> str:
    """Return the SHA-256 of all that decides the features of a model, in hexadecimal."""
    parts = {name: asdict(description)[name] for name in ("input", "features", "options")}
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(weights).digest() + text.encode()).hexdigest()


def load(source: str | os.PathLike[str]) -> Model:
    """Return the model of a folder, or of a zip or tar of a folder.

    Nothing is unpacked, and nothing in the files is run.

    Raises:
        FileNotFoundError: there is no model at the source.
        ValueError: a file is cut, damaged, too large, of another version of ianet, or the weights
            are not finite or of another network; one line.
    """
    path = Path(source)
    files = open_source(path, EXPECTED)
    folder, description = _read_config(files, path)
    weights = _read(files, path, str(folder / WEIGHTS), WEIGHTS_BYTES)
    network = restore(
        description,
        weights,
        description_path=f"{path}/{folder / CONFIG}",
        weights_path=f"{path}/{folder / WEIGHTS}",
        remedy=REMEDY,
    )
    return Model(network, description, weights)


def load_description(source: str | os.PathLike[str]) -> ModelDescription:
    """Return what the model of a folder, zip or tar says of itself, without its network.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    path = Path(source)
    return _read_config(open_source(path, EXPECTED), path)[1]


def _read_config(files: Files, path: Path) -> tuple[PurePosixPath, ModelDescription]:
    """Return the folder of a model in its source, and the model's description."""
    paths = files.paths()
    places = [PurePosixPath(name).parent for name in paths if PurePosixPath(name).name == CONFIG]
    if len(places) > 1:
        raise ValueError(f"{path} holds a {CONFIG} in {places[0]} and {places[1]}: name one folder")
    if RUN in paths:
        raise ValueError(
            f"{path} is a trained run and no model: `ianet.model.save_model` makes a model of it, "
            "and the pipeline does so in models/"
        )
    if not places:
        content = ", ".join(paths[:3]) or "nothing"
        raise FileNotFoundError(f"{path} holds no {CONFIG} but {content}. Expected: {EXPECTED}")
    [folder] = places
    config = _read(files, path, str(folder / CONFIG), CONFIG_BYTES)
    description = parse_description(ModelDescription, config, f"{path}/{folder / CONFIG}", REMEDY)
    return folder, description


def _read(files: Files, source: Path, name: str, limit: int) -> bytes:
    """Return the content of a file of a model, unless the file is larger than any such file."""
    if name not in files.paths():
        raise FileNotFoundError(f"{source} holds no {name}. Expected: {EXPECTED}")
    try:
        size = files.size(name)
        if size > limit:
            raise ValueError(
                f"{source}/{name} has {size:,} bytes, and such a file has {limit:,} at most: "
                f"{REMEDY}"
            )
        return files.read(name)
    except OSError as error:
        raise ValueError(f"{source}/{name} is damaged ({error}): {REMEDY}") from error


def save_model(
    network: Network,
    description: Description,
    folder: Path,
    *,
    name: str,
    terms: str,
    scores: tuple[ModelScores, ...] = (),
    commit: str = "",
) -> None:
    """Write a trained network as a model.

    Args:
        network: that is trained.
        description: of the network, see `ianet.network.load` and `ianet.network.describe`.
        folder: that is made.
        name: of the model, without spaces.
        terms: of the training data, a sentence or more.
        scores: on people who were not trained on.
        commit: of the code that trained the network.

    Raises:
        FileExistsError, ValueError: as `refuse_existing`, or a wrong name.
    """
    model = ModelDescription(
        **{field.name: getattr(description, field.name) for field in fields(Description)},
        name=name,
        terms=terms,
        scores=scores,
        commit=commit,
        calibration=None,
    )
    write_model(network, model, folder)


def write_model(network: Network, description: ModelDescription, folder: Path) -> None:
    """Write the folder of a model, which appears whole or not at all.

    Raises:
        FileExistsError, ValueError: as `refuse_existing`.
    """
    refuse_existing(folder)
    weights = serialize(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with build_whole(folder) as temporary:
        temporary.mkdir()
        write_description(description, temporary / CONFIG)
        (temporary / WEIGHTS).write_bytes(weights)
        card = write_card(description, digest(description, weights), parameters)
        (temporary / CARD).write_text(card)


def refuse_existing(folder: Path) -> None:
    """Refuse a place at which no model can be made, before the work.

    Raises:
        FileExistsError: there is something at the place, such as a link that leads nowhere.
        ValueError: the place is in the folder of a model, which would hold two models then, or as
            `ianet.files.check_place`; one line.
    """
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists: name another folder, or move this one away")
    check_place(folder)
    for parent in folder.resolve().parents:
        if (parent / CONFIG).is_file() and (parent / WEIGHTS).is_file():
            raise ValueError(
                f"{folder} is in the folder of a model, {parent}, and would damage that model: "
                "name another folder"
            )
