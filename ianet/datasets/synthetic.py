"""Synthetic pedestrians, drawn and stored in the layout of Market-1501.

`write` draws people whom six cameras see, as one zip that the reader of Market-1501 reads. It
needs no licence and no download and is small enough for a laptop, yet keeps what makes
re-identification hard: every camera has its own colours, light and view, people turn and walk,
boxes are badly cut, things stand in the way, and *families* of identities share build and clothes
and differ in small cues only: hair, hat, bag, belt and shoes.

Bodies are measured in statures: a person is 1 high, x points to the person's left, y down from
the crown of the head and z to where the person faces.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Joint = tuple[float, float, float]  # x, y and z in statures
Chain = tuple[Joint, ...]  # of bones
Spot = tuple[float, float]  # x and y in pixels of the enlarged layer
Paint = Colour | Image.Image  # one colour, or a cloth as large as the layer

# A random stream starts with the seed and one of these, so that no two streams are the same.
_PEOPLE, _TRACKS, _IMAGES, _SCENES, _PORTRAITS = range(5)
_ENLARGED = 3  # Pillow draws jagged edges: draw this much larger, then average
_JPEG_QUALITY = 90

# Few colours, on purpose: colour alone must not tell people apart.
_UPPER_COLOURS: tuple[Colour, ...] = (
    (34, 34, 40), (236, 234, 228), (130, 132, 138), (34, 46, 100), (62, 116, 196),
    (192, 44, 48), (48, 122, 74), (234, 190, 66), (112, 74, 48), (228, 142, 168),
)  # fmt: skip
_LOWER_COLOURS: tuple[Colour, ...] = (
    (38, 38, 42), (38, 48, 92), (84, 116, 164), (120, 122, 126), (198, 178, 140), (104, 72, 50),
)  # fmt: skip
_SKINS = ((244, 208, 178), (226, 180, 142), (190, 138, 100), (128, 86, 60))
_HAIR = ((32, 26, 24), (140, 72, 36), (218, 180, 104), (176, 176, 176))
_ACCENTS = ((30, 30, 34), (238, 236, 230), (200, 40, 44), (236, 188, 50), (40, 104, 190))
_METAL = (96, 100, 102)

# Each cue's kinds, the more often named the more often drawn, and its colours.
_CUES: dict[str, tuple[tuple[str, ...], tuple[Colour, ...]]] = {
    "hair": (("short", "long", "tail"), _HAIR),
    "hat": (("none", "none", "none", "cap", "beanie", "sun hat"), _ACCENTS),
    "bag": (("none", "backpack", "shoulder bag", "hand bag"), _ACCENTS),
    "belt": (("none", "none", "belt"), _ACCENTS),
    "shoes": (("shoes", "shoes", "boots"), _ACCENTS),
}
_FAMILY_SIZES = (3, 1, 1, 1, 2, 1, 1, 1, 4, 1, 1, 1)  # in turn: half of all people are alone

# Where a cloth shows its second colour; x and y in statures, x from the middle of the chest.
_TEXTURES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]] = {
    "plain": lambda x, y: (x > 9) & (y > 9),
    "stripes": lambda x, y: (y % 0.09 < 0.04) | (x > 9),
    "pinstripes": lambda x, y: (x % 0.06 < 0.022) | (y > 9),
    "checks": lambda x, y: (x % 0.09 < 0.045) ^ (y % 0.09 < 0.045),
    "dots": lambda x, y: (x % 0.07 - 0.035) ** 2 + (y % 0.07 - 0.035) ** 2 < 0.02**2,
    "band": lambda x, y: (abs(y - 0.31) < 0.045) | (x > 9),
    "halves": lambda x, y: (y > 0.33) | (x > 9),
    "logo": lambda x, y: x**2 + (y - 0.28) ** 2 < 0.045**2,
}


@dataclass(frozen=True)
class Item:
    """A thing worn; black where its kind is "none"."""

    kind: str
    colour: Colour


@dataclass(frozen=True)
class Garment:
    """How clothing is cut, its texture and the texture's two colours."""

    cut: str
    texture: str
    colour: Colour
    second: Colour


@dataclass(frozen=True)
class Person:
    """What makes an identity: build, clothes and small cues.

    Attributes:
        shoulders, waist: half the widths there, in statures.
        limbs: radius of an upper arm, in statures.
        skin: its colour.
        upper: cut "short" (sleeves), "long" or "coat".
        lower: cut "trousers", "shorts" or "skirt".
        hair, hat, bag, belt, shoes: the small cues, of the kinds in `_CUES`.
    """

    shoulders: float
    waist: float
    limbs: float
    skin: Colour
    upper: Garment
    lower: Garment
    hair: Item
    hat: Item
    bag: Item
    belt: Item
    shoes: Item


@dataclass(frozen=True)
class Camera:
    """How a camera sees, and the scene before it.

    Attributes:
        cast: gains of red, green and blue.
        gamma, contrast, brightness, saturation: of its light; 1, 1, 0 and 1 change nothing.
        blur: standard deviation, in 64ths of the image's width.
        noise: standard deviation; white is 1.
        quality: of its own JPEG compression.
        stretch: how much wider than high a body appears.
        taper: how much wider the head appears than the feet, as the camera looks down.
        lean: how far a body leans, x to y.
        horizon: where the wall meets the ground, in image heights from the top.
        wall, ground: two colours of each.
        cell: the wall's pattern, width, height and joint in image widths; None is foliage.
        paved: whether the ground has slabs.
    """

    cast: tuple[float, float, float]
    gamma: float
    contrast: float
    brightness: float
    saturation: float
    blur: float
    noise: float
    quality: int
    stretch: float
    taper: float
    lean: float
    horizon: float
    wall: tuple[Colour, Colour]
    ground: tuple[Colour, Colour]
    cell: tuple[float, float, float] | None
    paved: bool


CAMERAS = (
    Camera(
        cast=(1.04, 1.00, 0.92), gamma=0.96, contrast=1.02, brightness=0.02, saturation=1.00,
        blur=0.35, noise=0.015, quality=85, stretch=1.00, taper=0.10, lean=0.00, horizon=0.42,
        wall=((74, 112, 62), (48, 84, 46)), cell=None,
        ground=((196, 186, 170), (168, 158, 144)), paved=True,
    ),
    Camera(
        cast=(0.90, 0.98, 1.08), gamma=1.10, contrast=0.94, brightness=-0.01, saturation=0.88,
        blur=0.55, noise=0.030, quality=70, stretch=1.10, taper=0.25, lean=0.06, horizon=0.36,
        wall=((136, 140, 150), (62, 80, 104)), cell=(0.5, 0.42, 0.14),
        ground=((106, 110, 116), (92, 96, 102)), paved=False,
    ),
    Camera(
        cast=(1.08, 0.98, 0.86), gamma=1.04, contrast=0.98, brightness=0.00, saturation=0.90,
        blur=0.45, noise=0.025, quality=70, stretch=0.92, taper=0.05, lean=-0.05, horizon=0.55,
        wall=((190, 170, 150), (160, 96, 76)), cell=(0.2, 0.1, 0.02),
        ground=((156, 144, 132), (130, 120, 110)), paved=True,
    ),
    Camera(
        cast=(0.92, 1.05, 0.92), gamma=0.96, contrast=0.89, brightness=0.04, saturation=0.85,
        blur=0.60, noise=0.020, quality=60, stretch=1.05, taper=0.35, lean=0.00, horizon=0.30,
        wall=((160, 160, 154), (206, 204, 194)), cell=(0.7, 3.0, 0.02),
        ground=((180, 174, 162), (196, 190, 180)), paved=False,
    ),
    Camera(
        cast=(1.00, 1.02, 1.06), gamma=0.88, contrast=0.87, brightness=0.06, saturation=0.90,
        blur=0.60, noise=0.020, quality=75, stretch=0.97, taper=0.15, lean=0.08, horizon=0.38,
        wall=((150, 176, 126), (118, 146, 100)), cell=None,
        ground=((150, 172, 110), (126, 152, 92)), paved=False,
    ),
    Camera(
        cast=(1.05, 0.94, 1.03), gamma=1.12, contrast=1.08, brightness=0.02, saturation=1.00,
        blur=0.40, noise=0.035, quality=65, stretch=1.12, taper=0.20, lean=-0.08, horizon=0.48,
        wall=((92, 84, 96), (236, 208, 150)), cell=(0.9, 0.7, 0.08),
        ground=((94, 94, 98), (124, 122, 124)), paved=True,
    ),
)  # fmt: skip


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
    """Draws a set and writes it as one zip in Market-1501's layout, whole or not at all.

    The same arguments give the same bytes, whatever `processes` is.

    Args:
        target: the zip; one that is there is replaced.
        train_identities, test_identities: each is seen by two to six cameras.
        distractors, junk: images of the gallery, as identities 0000 and -1.
        images_per_camera: of each identity and each camera that sees it; for a test identity the
            first is a query and the others belong to the gallery.
        height, width: of the images, in pixels.
        seed: another one gives other people.
        processes: that draw at once; None is one for each processor.

    Raises:
        ValueError: a size is out of its range.
    """
    for name, value, least in (
        ("train_identities", train_identities, 1),
        ("test_identities", test_identities, 1),
        ("distractors", distractors, 0),
        ("junk", junk, 0),
        ("images_per_camera", images_per_camera, 2),
        ("height", height, 32),
        ("width", width, 16),
        ("seed", seed, 0),
        ("processes", 1 if processes is None else processes, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}: it must be {least} or more")
    if train_identities + test_identities > 9999:
        raise ValueError(
            f"train_identities is {train_identities} and test_identities {test_identities}: "
            "together they must be 9999 or fewer, as a file name has four digits for them"
        )
    planned = _plan(train_identities, test_identities, images_per_camera, distractors, junk, seed)
    shots = sorted(planned, key=lambda shot: shot.name)
    draw = partial(_draw_shot, height=height, width=width, seed=seed)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for shot, jpeg in zip(shots, _map(draw, shots, processes), strict=True):
                # A ZipInfo made by name has a fixed date: no clock gets into the bytes.
                entry = zipfile.ZipInfo(f"synthetic/{shot.name}")
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, jpeg)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


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
    """Draws one person of a set as asked, nothing left to chance and nobody in the way.

    Args:
        person: number of a test person of the set with this `seed`, from 0.
        facing: in radians; 0 is towards the camera, pi away from it.
        stride: how far the legs swing, in radians; 0 stands.
        phase: of the walk, in radians; the feet are farthest apart at pi / 2.
        stature: of the person, in image heights; the body is in the middle.
        camera: 1 to 6.
        height, width: of the image, in pixels.
        seed: of the set.

    Returns:
        The image, (height, width, 3) uint8, and where head, torso, belt or bag, leg and shoe
        are: name to (x, y) in pixels, the leg and shoe those nearer to the camera. A bag that
        the body hides gives way to the belt.

    Raises:
        ValueError: no such camera.
    """
    if not 1 <= camera <= len(CAMERAS):
        raise ValueError(f"camera is {camera}: it must be 1 to {len(CAMERAS)}")
    drawn = families(person + 1, np.random.default_rng([seed, _PEOPLE, 1]))[person]
    gait, size = _Gait(stride, phase, elbow=0.35, lifted=0.0), (width, height)
    figure = _Figure(CAMERAS[camera - 1], size, facing, 0.5, 0.5 * (1 + stature), stature)
    scene = _scene(camera - 1, height, width, seed)
    picture = scene.crop((width, height // 4, 2 * width, height // 4 + height))
    for layer in (_shadow(figure, size), _draw_person(figure, drawn, gait)):
        picture.paste(layer, mask=layer)
    rng = np.random.default_rng([seed, _PORTRAITS, person, camera])
    photograph = Image.open(io.BytesIO(_photograph(picture, CAMERAS[camera - 1], rng)))
    spots = {name: figure.spot(joint) for name, joint in _parts(figure, drawn, gait).items()}
    return np.asarray(photograph), {
        name: (x / _ENLARGED, y / _ENLARGED) for name, (x, y) in spots.items()
    }


def _map(
    draw: Callable[[Shot], bytes], shots: list[Shot], processes: int | None
) -> Iterator[bytes]:
    if processes == 1:
        yield from map(draw, shots)
        return
    # Spawned, as a fork of a program with threads may wait for ever.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(draw, shots, chunksize=16)


# Who is seen, where and when.


@dataclass(frozen=True)
class Shot:
    """An image to draw: its place in the set, whom it shows, if anyone, and facing where.

    `facing` is in radians: 0 is towards the camera, pi away from it.
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
        identity = f"{self.identity:04d}" if self.identity >= 0 else "-1"
        seen = f"c{self.camera}s{self.sequence}_{self.frame:06d}_{self.box:02d}"
        return f"{self.folder}/{identity}_{seen}.jpg"


def _plan(
    train: int, test: int, images_per_camera: int, distractors: int, junk: int, seed: int
) -> Iterator[Shot]:
    frames = [itertools.count(1, 25) for _ in CAMERAS]  # none twice, so that no name is

    def shot(rng: np.random.Generator, camera: int, **rest: Any) -> Shot:
        frame, box = next(frames[camera]), int(rng.integers(1, 5))
        return Shot(camera=camera + 1, frame=frame, box=box, **rest)

    training = families(train, np.random.default_rng([seed, _PEOPLE, 0]))
    testing = families(test, np.random.default_rng([seed, _PEOPLE, 1]))
    strangers = families(distractors, np.random.default_rng([seed, _PEOPLE, 2]))
    for identity, person in enumerate(training + testing, start=1):
        rng = np.random.default_rng([seed, _TRACKS, identity])
        cameras = rng.choice(len(CAMERAS), rng.integers(2, len(CAMERAS) + 1), replace=False)
        for camera in sorted(cameras.tolist()):
            heading = rng.uniform(0, 2 * math.pi)  # most people keep walking the same way
            for image in range(images_per_camera):
                held_out = "query" if image == 0 else "bounding_box_test"
                yield shot(
                    rng,
                    camera,
                    folder="bounding_box_train" if identity <= train else held_out,
                    identity=identity,
                    sequence=1 + identity % 6,
                    person=person,
                    facing=heading + rng.normal(0, 0.5),
                )
    rng = np.random.default_rng([seed, _TRACKS, 0])
    for image in range(distractors + junk):
        detected = strangers[image] if image < distractors else testing[rng.integers(test)]
        yield shot(
            rng,
            camera=int(rng.integers(len(CAMERAS))),
            folder="bounding_box_test",
            identity=0 if image < distractors else -1,
            sequence=int(rng.integers(1, 7)),
            person=None if rng.random() < 0.25 else detected,  # None is a false detection
            facing=rng.uniform(0, 2 * math.pi),
        )


def families(people: int, rng: np.random.Generator) -> list[Person]:
    """Draws people in families, which share build and clothes.

    Each further member of a family has another one of the first one's cues changed, so that any
    two of them differ in one or two cues.
    """
    drawn: list[Person] = []
    sizes = itertools.cycle(_FAMILY_SIZES)
    while len(drawn) < people:
        first = _person(rng)
        drawn.append(first)
        for cue in rng.permutation(list(_CUES))[: next(sizes) - 1].tolist():
            while (changed := _item(cue, rng)) == getattr(first, cue):
                pass
            change: dict[str, Any] = {cue: changed}
            drawn.append(replace(first, **change))
    return drawn[:people]


def _person(rng: np.random.Generator) -> Person:
    shoulders = rng.uniform(0.105, 0.14)
    upper_cut = str(rng.choice(["short", "long", "coat"]))
    lower_cut = str(rng.choice(["trousers", "trousers", "shorts", "skirt"]))
    return Person(
        shoulders=shoulders,
        waist=shoulders * rng.uniform(0.62, 0.95),
        limbs=rng.uniform(0.026, 0.036),
        skin=_SKINS[rng.integers(len(_SKINS))],
        upper=_garment(upper_cut, list(_TEXTURES), _UPPER_COLOURS, rng),
        lower=_garment(lower_cut, ["plain", "plain", "pinstripes", "checks"], _LOWER_COLOURS, rng),
        **{cue: _item(cue, rng) for cue in _CUES},
    )


def _garment(
    cut: str, textures: list[str], colours: tuple[Colour, ...], rng: np.random.Generator
) -> Garment:
    colour = colours[rng.integers(len(colours))]
    # The two must differ in light: the cameras' casts change hues.
    legible = [other for other in colours if abs(sum(other) - sum(colour)) > 150]
    return Garment(cut, str(rng.choice(textures)), colour, legible[rng.integers(len(legible))])


def _item(cue: str, rng: np.random.Generator) -> Item:
    kinds, colours = _CUES[cue]
    kind = str(rng.choice(kinds))
    return Item(kind, colours[rng.integers(len(colours))] if kind != "none" else (0, 0, 0))


# Bodies.


class _Figure:
    """A transparent layer, and a body's place in it as a camera sees it.

    `centre` is in image widths, `feet` (from the top) and `stature` are in image heights.
    """

    def __init__(
        self,
        camera: Camera,
        size: tuple[int, int],
        facing: float,
        centre: float,
        feet: float,
        stature: float,
    ) -> None:
        width, height = size[0] * _ENLARGED, size[1] * _ENLARGED
        self.layer = Image.new("RGBA", (width, height))
        self.camera = camera
        self.sine, self.cosine = math.sin(facing), math.cos(facing)
        self.centre, self.feet, self.stature = centre * width, feet * height, stature * height

    def depth(self, joint: Joint) -> float:
        """How much nearer to the camera than the body's axis."""
        return joint[2] * self.cosine - joint[0] * self.sine

    def scale(self, y: float) -> float:
        """Pixels to a stature across the body at that height of it."""
        return self.stature * self.camera.stretch * (1 + self.camera.taper * (0.5 - y))

    def spot(self, joint: Joint) -> Spot:
        x, y, z = joint
        across = (x * self.cosine + z * self.sine) * self.scale(y)
        lean = self.camera.lean * (1 - y)
        fall = 0.4 * self.camera.taper * self.depth(joint)  # seen from above, near is lower
        return self.centre + across + lean * self.stature, self.feet + (y - 1 + fall) * self.stature

    def limb(self, paint: Paint, *joints: tuple[Joint, float]) -> None:
        """A chain of bones from joint to joint; each joint has a radius in statures."""
        rounds = [(*self.spot(joint), radius * self.stature) for joint, radius in joints]

        def shape(draw: ImageDraw.ImageDraw, ink: Colour | int) -> None:
            for x, y, r in rounds:
                draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
            for (x, y, r), (p, q, s) in itertools.pairwise(rounds):
                length = math.hypot(p - x, q - y) or 1.0
                u, v = (y - q) / length, (p - x) / length  # across the bone
                side = [(x + u * r, y + v * r), (p + u * s, q + v * s)]
                draw.polygon([*side, (p - u * s, q - v * s), (x - u * r, y - v * r)], fill=ink)

        self._fill(paint, shape)

    def trunk(
        self, paint: Paint, *rings: tuple[float, float, float], axis: tuple[float, float] = (0, 0)
    ) -> None:
        """A solid of rings, from the top, around the upright at x and z of `axis`.

        A ring is its y, half its width and half its depth, in statures.
        """
        left, right = [], []
        for y, wide, deep in rings:
            x, down = self.spot((axis[0], y, axis[1]))
            half = math.hypot(wide * self.cosine, deep * self.sine) * self.scale(y)
            left.append((x - half, down))
            right.append((x + half, down))
        self._fill(paint, lambda draw, ink: draw.polygon(left + right[::-1], fill=ink))

    def _fill(
        self, paint: Paint, shape: Callable[[ImageDraw.ImageDraw, Colour | int], None]
    ) -> None:
        if isinstance(paint, tuple):
            shape(ImageDraw.Draw(self.layer), paint)
        else:
            mask = Image.new("L", self.layer.size)
            shape(ImageDraw.Draw(mask), 255)
            self.layer.paste(paint, mask=mask)

    def cloth(self, garment: Garment) -> Image.Image:
        """The garment's texture all over the layer."""
        columns, rows = self.layer.size
        x = (np.arange(columns)[None, :] - self.spot((0.0, 0.3, 0.08))[0]) / self.scale(0.3)
        y = 1 + (np.arange(rows)[:, None] - self.feet) / self.stature
        hidden = garment.texture == "logo" and self.cosine < 0.2
        second = _TEXTURES["plain" if hidden else garment.texture](x, y)
        cloth = Image.new("RGBA", self.layer.size, garment.colour)
        cloth.paste(garment.second, mask=Image.fromarray(second))
        return cloth

    def darken(self) -> None:
        """Puts what is drawn so far into the shade of what is to come."""
        self.layer.paste((0, 0, 0), mask=self.layer.getchannel("A").point(lambda a: 0.22 * a))

    def finished(self) -> Image.Image:
        """The layer at its true size, its light falling on round bodies from the left."""
        layer = self.layer.reduce(_ENLARGED)
        soft = layer.getchannel("A").filter(ImageFilter.GaussianBlur(layer.width / 24))
        light = np.gradient(np.asarray(soft, np.float32), axis=1) * (layer.width / 4080)
        pixels = np.asarray(layer).astype(np.float32)
        pixels[..., :3] *= 1 + light.clip(-0.3, 0.15)[..., None]
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_person(figure: _Figure, person: Person, gait: _Gait) -> Image.Image:
    """Draws the parts from the farthest to the nearest."""
    upper, lower = figure.cloth(person.upper), figure.cloth(person.lower)
    arms, legs = _pose(person, gait)
    hair, bag = (0.0, 0.1, -0.2), _bag_place(person, arms[0][-1])
    parts: list[tuple[float, Callable[[], None]]] = [
        (figure.depth(hair), partial(_draw_loose_hair, figure, person)),
        (figure.depth(bag) + 0.01, partial(_draw_bag, figure, person, bag)),
        (0.0, partial(_draw_torso, figure, person, upper, lower)),
        (0.05, partial(_draw_head, figure, person)),
    ]
    for arm in arms:
        parts.append((figure.depth(arm[1]), partial(_draw_arm, figure, person, upper, arm)))
    for leg in legs:  # clothes of the upper body hang over the near leg too
        depth = min(figure.depth(leg[1]), -0.02)
        parts.append((depth, partial(_draw_leg, figure, person, lower, leg)))
    parts.append((-0.02, figure.darken))
    for _, draw in sorted(parts, key=lambda part: (part[0], part[1] != figure.darken)):
        draw()
    return figure.finished()


@dataclass(frozen=True)
class _Gait:
    """How a person walks, in radians: how far the legs swing, when, and how the arms bend."""

    stride: float
    phase: float
    elbow: float
    lifted: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Gait:
        return cls(
            stride=rng.choice([0.08, rng.uniform(0.25, 0.55)], p=[0.25, 0.75]),  # stands or walks
            phase=rng.uniform(0, 2 * math.pi),
            elbow=rng.uniform(0.1, 0.6),
            lifted=rng.choice([0.0, 1.6], p=[0.85, 0.15]),  # to look at a telephone
        )


def _pose(person: Person, gait: _Gait) -> tuple[list[Chain], list[Chain]]:
    """Arms (shoulder, elbow, wrist) and legs (hip, knee, ankle, toe), the right ones first."""
    arms: list[Chain] = []
    legs: list[Chain] = []
    for side in (-1, 1):
        thigh = side * gait.stride * math.sin(gait.phase)
        shin = thigh - 0.6 * gait.stride * (1 + side * math.cos(gait.phase))
        hip = (0.05 * side, 0.5, 0.0)
        knee = _swung(hip, 0.235, thigh)
        ankle = _swung(knee, 0.225, shin)
        legs.append((hip, knee, ankle, (1.3 * ankle[0], ankle[1] + 0.02, ankle[2] + 0.065)))
        shoulder = (side * (person.shoulders - 0.6 * person.limbs), 0.21, 0.0)
        elbow = _swung((1.15 * shoulder[0], 0.21, 0.0), 0.15, -0.8 * thigh)
        bend = -0.8 * thigh + gait.elbow + (gait.lifted if side > 0 else 0)
        arms.append((shoulder, elbow, _swung(elbow, 0.14, bend)))
    return arms, legs


def _parts(figure: _Figure, person: Person, gait: _Gait) -> dict[str, Joint]:
    """A point of each part of the body that Figure 8 of the paper marks."""
    arms, legs = _pose(person, gait)
    _, knee, ankle, toe = max(legs, key=lambda leg: figure.depth(leg[-1]))
    bag = _bag_place(person, arms[0][-1])
    middle = {"backpack": 0.13, "shoulder bag": 0.055, "hand bag": 0.05}
    if person.bag.kind != "none" and figure.depth(bag) >= 0:
        carried = bag[0], bag[1] + middle[person.bag.kind], bag[2]
    else:
        carried = 0.0, 0.448, 0.0
    return {
        "head": (0.0, 0.075, 0.0),
        "torso": (0.0, 0.3, 0.0),
        "belt or bag": carried,
        "leg": _along(knee, ankle, 0.25),  # below the hem of a skirt
        "shoe": _along(ankle, toe, 0.4),
    }


def _swung(joint: Joint, length: float, angle: float) -> Joint:
    """The end of a bone that hangs from the joint and is swung forward."""
    x, y, z = joint
    return x, y + length * math.cos(angle), z + length * math.sin(angle)


def _along(start: Joint, end: Joint, share: float) -> Joint:
    x, y, z = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return x, y, z


def _dark(colour: Colour, light: float = 0.75) -> Colour:
    red, green, blue = colour
    return int(red * light), int(green * light), int(blue * light)


def _draw_leg(figure: _Figure, person: Person, cloth: Paint, leg: Chain) -> None:
    hip, knee, ankle, toe = leg
    shoes, thick, thin = person.shoes.colour, 1.8 * person.limbs, 1.05 * person.limbs
    figure.limb(person.skin, (hip, thick), (knee, 0.75 * thick), (ankle, 0.8 * thin))
    figure.limb(shoes, (ankle, 0.03), (toe, 0.024))
    if person.shoes.kind == "boots":
        figure.limb(shoes, (_along(knee, ankle, 0.4), thin), (ankle, thin))
    if person.lower.cut == "trousers":
        end = _along(knee, ankle, 0.5 if person.shoes.kind == "boots" else 0.85)
        figure.limb(cloth, (hip, thick), (knee, 0.85 * thick), (end, thin))
    elif person.lower.cut == "shorts":
        figure.limb(cloth, (hip, thick), (_along(hip, knee, 0.9), 0.95 * thick))


def _draw_arm(figure: _Figure, person: Person, cloth: Paint, arm: Chain) -> None:
    shoulder, elbow, wrist = arm
    r = person.limbs
    figure.limb(person.skin, (elbow, 0.8 * r), (wrist, 0.7 * r))
    figure.limb(person.skin, (wrist, 0.026))
    if person.upper.cut == "short":
        sleeve = [(shoulder, r), (_along(shoulder, elbow, 0.75), 1.1 * r)]
    else:
        sleeve = [(shoulder, r), (elbow, r), (_along(elbow, wrist, 0.9), 0.85 * r)]
    edge = [(_along(shoulder, sleeve[1][0], 0.3), r), *sleeve[1:]]
    outline = _dark(person.upper.colour, 0.6)  # sets the arm off against the torso
    figure.limb(outline, *((joint, radius + 0.006) for joint, radius in edge))
    figure.limb(cloth, *sleeve)


def _draw_torso(figure: _Figure, person: Person, upper: Paint, lower: Paint) -> None:
    waist, wide = person.waist, person.shoulders
    if person.lower.cut == "skirt":
        hips = waist + 0.015
        figure.trunk(lower, (0.44, waist, 0.07), (0.55, hips, 0.085), (0.73, hips + 0.04, 0.12))
    hem = {"short": 0.52, "long": 0.54, "coat": 0.66}[person.upper.cut]
    figure.limb(_dark(person.skin, 0.85), ((0.0, 0.12, 0.0), 0.03), ((0.0, 0.18, 0.0), 0.036))
    figure.trunk(
        upper,
        (0.162, 0.04, 0.04),
        (0.178, 0.75 * wide, 0.06),
        (0.2, wide, 0.068),
        (0.3, 0.5 * (wide + waist), 0.082),
        (0.43, waist, 0.075),
        (hem, waist + 0.012 + 0.25 * (hem - 0.52), 0.085),
    )
    if person.belt.kind != "none":
        figure.trunk(person.belt.colour, (0.425, waist, 0.077), (0.47, waist, 0.079))
    if person.bag.kind == "backpack" and figure.cosine > 0.1:
        for x in (-0.6 * wide, 0.6 * wide):
            figure.limb(person.bag.colour, ((x, 0.18, 0.05), 0.013), ((x, 0.36, 0.06), 0.011))


def _draw_head(figure: _Figure, person: Person) -> None:
    figure.limb(person.hair.colour, ((0.0, 0.06, -0.012), 0.058), ((0.0, 0.085, -0.012), 0.056))
    if figure.cosine > -0.5:
        figure.limb(person.skin, ((0.0, 0.083, 0.018), 0.046), ((0.0, 0.1, 0.018), 0.042))
        for x in (-0.02, 0.02):
            if figure.depth((x, 0.08, 0.04)) > 0.015:
                figure.limb((44, 34, 34), ((x, 0.082, 0.04), 0.0065))
    colour, dark = person.hat.colour, _dark(person.hat.colour)
    crown = (-0.015, 0.03, 0.03), (0.005, 0.054, 0.054), (0.05, 0.066, 0.066)
    match person.hat.kind:
        case "cap":
            figure.trunk(colour, *crown)
            figure.limb(dark, ((0.0, 0.05, 0.04), 0.016), ((0.0, 0.056, 0.1), 0.012))
        case "beanie":
            figure.trunk(colour, *crown)
            figure.trunk(dark, (0.035, 0.067, 0.067), (0.062, 0.067, 0.067))
        case "sun hat":
            figure.trunk(colour, *crown)
            figure.trunk(dark, (0.035, 0.08, 0.08), (0.05, 0.118, 0.118), (0.06, 0.118, 0.118))


def _draw_loose_hair(figure: _Figure, person: Person) -> None:
    colour = _dark(person.hair.colour, 0.9)
    if person.hair.kind == "long":
        figure.limb(colour, ((0.0, 0.08, -0.015), 0.06), ((0.0, 0.2, -0.04), 0.055))
    elif person.hair.kind == "tail":
        figure.limb(colour, ((0.0, 0.06, -0.075), 0.024), ((0.0, 0.2, -0.075), 0.015))


def _bag_place(person: Person, wrist: Joint) -> Joint:
    """The middle of the bag's upper rim."""
    match person.bag.kind:
        case "backpack":
            return 0.0, 0.19, -0.11
        case "shoulder bag":
            return -person.shoulders - 0.01, 0.42, 0.0
    return wrist[0], wrist[1] + 0.06, wrist[2]


def _draw_bag(figure: _Figure, person: Person, place: Joint) -> None:
    colour, dark = person.bag.colour, _dark(person.bag.colour)
    x, y, z = place
    match person.bag.kind:
        case "backpack":
            rings = (y, 0.06, 0.05), (0.22, 0.09, 0.07), (0.43, 0.095, 0.075), (0.46, 0.08, 0.06)
            figure.trunk(colour, *rings, axis=(x, z))
            figure.trunk(dark, (0.35, 0.06, 0.05), (0.43, 0.06, 0.06), axis=(x, z - 0.02))
        case "shoulder bag":  # its strap crosses chest and back
            strap = ((0.7 * person.shoulders, 0.18, 0.0), 0.011)
            figure.limb(dark, strap, ((x, y, math.copysign(0.07, figure.cosine)), 0.011))
            figure.trunk(colour, (y, 0.04, 0.07), (y + 0.11, 0.045, 0.075), axis=(x, z))
        case "hand bag":
            figure.limb(dark, ((x, y - 0.06, z), 0.008), ((x, y, z), 0.008))
            figure.trunk(colour, (y, 0.04, 0.06), (y + 0.1, 0.05, 0.075), axis=(x, z))


# Scenes, and the taking of a picture.


@cache
def _scene(number: int, height: int, width: int, seed: int) -> Image.Image:
    """What a camera watches, four images wide and one and a half high."""
    camera, rng = CAMERAS[number], np.random.default_rng([seed, _SCENES, number])
    columns, rows, floor = 4 * width, height * 3 // 2, int((camera.horizon + 0.25) * height)
    scene = Image.new("RGB", (columns, rows), camera.wall[0])
    draw = ImageDraw.Draw(scene)
    if camera.cell is None:
        for _ in range(900):
            x, y, r = rng.uniform(0, columns), rng.uniform(0, floor), rng.uniform(0.02, 0.1) * width
            leaf = _dark(camera.wall[rng.integers(2)], rng.uniform(0.8, 1.15))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=leaf)
    else:
        across, high, joint = (length * width for length in camera.cell)
        for row, column in np.ndindex(math.ceil(floor / high), math.ceil(columns / across) + 1):
            x, y = (column - 0.5 * (row % 2)) * across, floor - (row + 1) * high
            cell = _dark(camera.wall[1], rng.uniform(0.75, 1.1))
            draw.rectangle((x, y, x + across - joint, y + high - joint), fill=cell)
    draw.rectangle((0, floor, columns, rows), fill=camera.ground[0])
    if camera.paved:
        for line in range(1, 12):
            y = floor + (rows - floor) * (line / 12) ** 1.6
            draw.line((0, y, columns, y), fill=camera.ground[1])
        for x in range(-4 * columns, 4 * columns, width // 3):  # towards a vanishing point
            draw.line((columns / 2 + x / 4, floor, columns / 2 + x, rows), fill=camera.ground[1])
    else:
        for _ in range(400):
            x, y, r = rng.uniform(0, columns), rng.uniform(floor, rows), rng.uniform(0, 0.2) * width
            draw.ellipse((x - r, y - r / 4, x + r, y + r / 4), fill=camera.ground[1])
    return scene.filter(ImageFilter.GaussianBlur(width / 80))


def _draw_shot(shot: Shot, height: int, width: int, seed: int) -> bytes:
    """Draws from a random stream of the shot's own, so that nothing depends on the order."""
    stream = [seed, _IMAGES, shot.identity + 1, shot.camera, shot.frame]
    rng, camera, size = np.random.default_rng(stream), CAMERAS[shot.camera - 1], (width, height)
    left, top = (int(rng.uniform(0, 3) * width), int(rng.uniform(0.15, 0.35) * height))
    scene = _scene(shot.camera - 1, height, width, seed)
    picture = scene.crop((left, top, left + width, top + height))

    def add(layer: Image.Image) -> None:
        picture.paste(layer, mask=layer)

    def passer_by(stature: float) -> Image.Image:
        centre = rng.choice([0.0, 1.0]) + rng.normal(0, 0.1)
        feet = 0.45 + 0.55 * stature
        figure = _Figure(camera, size, rng.uniform(0, 2 * math.pi), centre, feet, stature)
        return _draw_person(figure, families(1, rng)[0], _Gait.drawn(rng))

    if rng.random() < 0.12:
        add(passer_by(rng.uniform(0.6, 0.85)))
    if shot.person is not None:
        figure = _Figure(camera, size, shot.facing, *_framing(shot.identity < 0, rng))
        add(_shadow(figure, size))
        add(_draw_person(figure, shot.person, _Gait.drawn(rng)))
    if shot.person is None or rng.random() < 0.12:
        add(_obstacle(size, rng))
    elif rng.random() < 0.07:
        add(passer_by(rng.uniform(1.0, 1.2)))
    return _photograph(picture, camera, rng)


def _framing(junk: bool, rng: np.random.Generator) -> tuple[float, float, float]:
    """Centre, feet and stature of a body in its box, which now and then is badly cut."""
    if junk:  # a piece of a body
        stature = rng.uniform(1.5, 2.6)
        return rng.uniform(0.1, 0.9), rng.uniform(1.0, stature + 0.1), stature
    if rng.random() < 0.12:
        stature = rng.uniform(0.75, 1.15)
        return rng.normal(0.5, 0.12), 0.5 * (1 + stature) + rng.normal(0, 0.06), stature
    stature = rng.uniform(0.88, 0.96)
    return rng.normal(0.5, 0.04), 0.5 * (1 + stature) + rng.normal(0, 0.012), stature


def _shadow(figure: _Figure, size: tuple[int, int]) -> Image.Image:
    """A soft shadow: without it bodies seem to float."""
    x, y, r = figure.centre / _ENLARGED, figure.feet / _ENLARGED, 0.16 * figure.stature / _ENLARGED
    layer = Image.new("RGBA", size)
    ImageDraw.Draw(layer).ellipse((x - r, y - r / 3, x + 1.6 * r, y + r / 5), fill=(0, 0, 0, 120))
    return layer.filter(ImageFilter.GaussianBlur(size[0] / 32))


def _obstacle(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A pole, a bicycle or a box somewhere before the body."""
    width, height = size[0] * _ENLARGED, size[1] * _ENLARGED
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    x, ground = rng.uniform(0, width), rng.uniform(0.93, 1.05) * height
    ink = _dark(_ACCENTS[rng.integers(len(_ACCENTS))], 0.85)
    match rng.integers(3):
        case 0:
            half = rng.uniform(0.04, 0.08) * width
            draw.rectangle((x - half, 0, x + half, ground), fill=_METAL)
            draw.rectangle((x - half, 0, x - half / 3, ground), fill=_dark(_METAL, 1.3))
        case 1:
            r, line = rng.uniform(0.25, 0.32) * width, width // 40 + 1
            rear, front = (x - 1.15 * r, ground - r), (x + 1.15 * r, ground - r)
            for a, b in (rear, front):
                draw.ellipse((a - r, b - r, a + r, b + r), outline=_dark(_METAL, 0.4), width=line)
            saddle, bar = (x - 0.5 * r, ground - 2.1 * r), (x + 0.7 * r, ground - 2.3 * r)
            pedals = (x, ground - r)
            draw.line([rear, pedals, saddle, rear, saddle, bar, pedals, bar, front], ink, line)
            seat = (saddle[0] - r / 3, saddle[1], saddle[0] + r / 3, saddle[1])
            draw.line(seat, _dark(_METAL, 0.4), 2 * line)
        case _:
            half, top = rng.uniform(0.18, 0.35) * width, ground - rng.uniform(0.14, 0.28) * height
            draw.rectangle((x - half, top, x + half, ground), fill=ink)
            draw.rectangle((x - half, top, x + half, top + height / 40), fill=_dark(ink))
    return layer.reduce(_ENLARGED)


def _photograph(picture: Image.Image, camera: Camera, rng: np.random.Generator) -> bytes:
    """Gives the picture the camera's colours and faults, and the light of the moment."""
    light = np.asarray(picture).astype(np.float32) / 255
    grey = light.mean(axis=2, keepdims=True)
    light = (grey + camera.saturation * (light - grey)).clip(0, 1)
    light **= camera.gamma * rng.uniform(0.9, 1.11)
    light *= np.array(camera.cast) * rng.normal(1, 0.03, 3)
    light = 0.5 + camera.contrast * rng.uniform(0.9, 1.1) * (light - 0.5)
    light += camera.brightness + rng.normal(0, 0.03)
    light *= np.linspace(1, 1 + rng.uniform(-0.2, 0.2), picture.width)[None, :, None]
    sharp = Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))
    blur = camera.blur * rng.uniform(0.7, 1.4) * picture.width / 64
    seen = np.asarray(sharp.filter(ImageFilter.GaussianBlur(blur))).astype(np.float32)
    seen += rng.normal(0, 255 * camera.noise, seen.shape)
    sent = _jpeg(Image.fromarray(seen.clip(0, 255).astype(np.uint8)), camera.quality)
    return _jpeg(Image.open(io.BytesIO(sent)), _JPEG_QUALITY)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
