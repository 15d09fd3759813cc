"""A person of a synthetic set, drawn as described."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ianet.synthetic import streams
from ianet.synthetic.body import Gait, draw_person, find_parts
from ianet.synthetic.cameras import CAMERAS, photograph
from ianet.synthetic.figure import OVERSAMPLING, Figure, Spot
from ianet.synthetic.people import families
from ianet.synthetic.scene import draw_scene, draw_shadow


def portrait(
    person: int,
    *,
    facing: float,
    stride: float,
    phase: float,
    stature: float,
    camera: int,
    height: int,
    width: int,
    seed: int,
) -> tuple[NDArray[np.uint8], dict[str, Spot]]:
    """Draw a person of a set as described, without chance and without obstacles.

    Args:
        person: number of a test person of the set with this `seed`, from 0.
        facing: in radians; 0 is towards the camera, pi away from the camera.
        stride: how far the legs swing, in radians; 0 stands.
        phase: of the walk, in radians; the feet are farthest apart at pi / 2.
        stature: of the person, in image heights; the body is in the middle.
        camera: 1 to 6.
        height, width: of the image, in pixels.
        seed: of the set.

    Returns:
        The image, (height, width, 3) uint8, and the spots of head, torso, belt or bag, leg and
        shoe: name to (x, y) in pixels. Leg and shoe are those nearer to the camera. If the body
        hides the bag, the spot is that of the belt.

    Raises:
        ValueError: an unknown camera.
    """
    if not 1 <= camera <= len(CAMERAS):
        raise ValueError(f"camera is {camera}: it must be 1 to {len(CAMERAS)}")
    sitter = families(person + 1, np.random.default_rng([seed, streams.PEOPLE, 1]))[person]
    gait, size = Gait(stride, phase, elbow=0.35, lift=0.0), (width, height)
    figure = Figure(CAMERAS[camera - 1], size, facing, 0.5, 0.5 * (1 + stature), stature)
    scene = draw_scene(camera - 1, height, width, seed)
    picture = scene.crop((width, height // 4, 2 * width, height // 4 + height))
    for layer in (draw_shadow(figure, size), draw_person(figure, sitter, gait)):
        picture.paste(layer, mask=layer)
    rng = np.random.default_rng([seed, streams.PORTRAITS, person, camera])
    image = Image.open(io.BytesIO(photograph(picture, CAMERAS[camera - 1], rng)))
    spots = {name: figure.spot(joint) for name, joint in find_parts(figure, sitter, gait).items()}
    return np.asarray(image), {
        name: (x / OVERSAMPLING, y / OVERSAMPLING) for name, (x, y) in spots.items()
    }
