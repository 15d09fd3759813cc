"""A synthetic data set: who is seen where, and one zip in the layout of Market-1501.

The set needs no licence and no download and is small enough for a laptop. It keeps what makes
re-identification hard. Every camera has other colours, light and view. People turn and walk, boxes
are badly cut, things stand in the way, and families of identities differ in small cues only.
"""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ianet.files import build_whole
from ianet.synthetic import streams
from ianet.synthetic.body import Gait, draw_person
from ianet.synthetic.cameras import CAMERAS, photograph
from ianet.synthetic.figure import Figure
from ianet.synthetic.people import Person, families
from ianet.synthetic.scene import draw_obstacle, draw_scene, draw_shadow
from ianet.synthetic.sizes import check_sizes

LOOSE = 0.5
"""Share of the boxes that a detector has cut badly."""
LOOSE_STATURES = (0.6, 1.25)
"""Least and largest height of a body in such a box, in heights of the box."""


def write(
    target: Path,
    *,
    train_identities: int,
    test_identities: int,
    distractors: int,
    junk: int,
    images_per_camera: int = 3,
    height: int = 128,
    width: int = 64,
    seed: int = 0,
    processes: int | None = None,
) -> None:
    """Draw a set and write one zip in Market-1501's layout, whole or not at all.

    The same arguments give the same bytes, whatever `processes` is.

    Args:
        target: the zip; an existing file is replaced.
        train_identities, test_identities: numbers of people; two to six cameras see each.
        distractors, junk: numbers of images in the gallery, as identities 0000 and -1.
        images_per_camera: of each identity and each camera that sees the identity. For a test
            identity the first image is a query and the others belong to the gallery.
        height, width: of the images, in pixels.
        seed: another seed gives other people.
        processes: number of processes that draw; None is a process for each processor.

    Raises:
        ValueError: a size is out of its range.
    """
    check_sizes(
        {
            "train_identities": train_identities,
            "test_identities": test_identities,
            "distractors": distractors,
            "junk": junk,
            "images_per_camera": images_per_camera,
            "height": height,
            "width": width,
            "seed": seed,
            "processes": 1 if processes is None else processes,
        }
    )
    shots = sorted(
        plan_shots(train_identities, test_identities, images_per_camera, distractors, junk, seed),
        key=lambda shot: shot.name,
    )
    draw = partial(draw_shot, height=height, width=width, seed=seed)
    with build_whole(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for shot, jpeg in zip(shots, _map(draw, shots, processes), strict=True):
            # A ZipInfo made by name has a fixed date: no clock gets into the bytes.
            entry = zipfile.ZipInfo(f"synthetic/{shot.name}")
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, jpeg)


def _map(
    draw: Callable[[Shot], bytes], shots: list[Shot], processes: int | None
) -> Iterator[bytes]:
    if processes == 1:
        yield from map(draw, shots)
        return
    # A fork of a program with threads may wait for ever: processes are spawned.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        try:
            yield from pool.map(draw, shots, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Shot:
    """An image to draw.

    Attributes:
        folder: of the layout.
        identity: 0 for a distractor, -1 for junk.
        camera: from 1.
        sequence, frame, box: numbers in the name of the image.
        person: whom the image shows; None is a false detection.
        facing: in radians; 0 is towards the camera, pi away from the camera.
    """

    folder: str
    identity: int
    camera: int
    sequence: int
    frame: int
    box: int
    person: Person | None
    facing: float

    @property
    def name(self) -> str:
        """Path of the image in the archive."""
        identity = f"{self.identity:04d}" if self.identity >= 0 else "-1"
        place = f"c{self.camera}s{self.sequence}_{self.frame:06d}_{self.box:02d}"
        return f"{self.folder}/{identity}_{place}.jpg"


def plan_shots(
    train: int, test: int, images_per_camera: int, distractors: int, junk: int, seed: int
) -> Iterator[Shot]:
    """Yield the shots of a set; the arguments are those of `write`."""
    frames = [itertools.count(1, 25) for _ in CAMERAS]  # no frame twice, hence no name twice

    def shot(rng: np.random.Generator, camera: int, **rest: Any) -> Shot:
        frame, box = next(frames[camera]), int(rng.integers(1, 5))
        return Shot(camera=camera + 1, frame=frame, box=box, **rest)

    training = families(train, np.random.default_rng([seed, streams.PEOPLE, 0]))
    testing = families(test, np.random.default_rng([seed, streams.PEOPLE, 1]))
    bystanders = families(distractors, np.random.default_rng([seed, streams.PEOPLE, 2]))
    for identity, person in enumerate(training + testing, start=1):
        rng = np.random.default_rng([seed, streams.TRACKS, identity])
        cameras = rng.choice(len(CAMERAS), rng.integers(2, len(CAMERAS) + 1), replace=False)
        for camera in sorted(cameras.tolist()):
            heading = rng.uniform(0, 2 * math.pi)  # most people keep walking the same way
            for image in range(images_per_camera):
                test_folder = "query" if image == 0 else "bounding_box_test"
                yield shot(
                    rng,
                    camera,
                    folder="bounding_box_train" if identity <= train else test_folder,
                    identity=identity,
                    sequence=1 + identity % 6,
                    person=person,
                    facing=heading + rng.normal(0, 0.5),
                )
    rng = np.random.default_rng([seed, streams.TRACKS, 0])
    for image in range(distractors + junk):
        person = bystanders[image] if image < distractors else testing[rng.integers(test)]
        yield shot(
            rng,
            camera=int(rng.integers(len(CAMERAS))),
            folder="bounding_box_test",
            identity=0 if image < distractors else -1,
            sequence=int(rng.integers(1, 7)),
            person=None if rng.random() < 0.25 else person,
            facing=rng.uniform(0, 2 * math.pi),
        )


def draw_shot(shot: Shot, height: int, width: int, seed: int) -> bytes:
    """Return the JPEG of a shot.

    Each shot has a stream of random numbers, so that images do not depend on their order.
    """
    stream = [seed, streams.IMAGES, shot.identity + 1, shot.camera, shot.frame]
    rng, camera, size = np.random.default_rng(stream), CAMERAS[shot.camera - 1], (width, height)
    left, top = (int(rng.uniform(0, 3) * width), int(rng.uniform(0.15, 0.35) * height))
    scene = draw_scene(shot.camera - 1, height, width, seed)
    picture = scene.crop((left, top, left + width, top + height))

    def add(layer: Image.Image) -> None:
        picture.paste(layer, mask=layer)

    def passer_by(stature: float) -> Image.Image:
        centre = rng.choice([0.0, 1.0]) + rng.normal(0, 0.1)
        feet = 0.45 + 0.55 * stature
        figure = Figure(camera, size, rng.uniform(0, 2 * math.pi), centre, feet, stature)
        return draw_person(figure, families(1, rng)[0], Gait.random(rng))

    if rng.random() < 0.12:
        add(passer_by(rng.uniform(0.6, 0.85)))
    if shot.person is not None:
        figure = Figure(camera, size, shot.facing, *_place_body(shot.identity < 0, rng))
        add(draw_shadow(figure, size))
        add(draw_person(figure, shot.person, Gait.random(rng)))
    if shot.person is None or rng.random() < 0.12:
        add(draw_obstacle(size, rng))
    elif rng.random() < 0.07:
        add(passer_by(rng.uniform(1.0, 1.2)))
    return photograph(picture, camera, rng)


def _place_body(junk: bool, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return centre, feet and stature of a body in its box.

    Half of the boxes are tight. In the others a detector has cut too much or too little, so that
    the same person is seen up to twice as large. The units are those of `Figure`.
    """
    if junk:  # a piece of a body
        stature = rng.uniform(1.5, 2.6)
        return rng.uniform(0.1, 0.9), rng.uniform(1.0, stature + 0.1), stature
    if rng.random() < LOOSE:
        stature = rng.uniform(*LOOSE_STATURES)
        return rng.normal(0.5, 0.1), 0.5 * (1 + stature) + rng.normal(0, 0.05), stature
    stature = rng.uniform(0.88, 0.96)
    return rng.normal(0.5, 0.04), 0.5 * (1 + stature) + rng.normal(0, 0.012), stature
