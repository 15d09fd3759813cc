"""How a camera sees: colours, light, faults, and the scene before it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ianet.synthetic.palette import Colour

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Camera:
    """How a camera sees, and the scene before it.

    Attributes:
        cast: gains of red, green and blue.
        gamma, contrast, brightness, saturation: of the light; 1, 1, 0 and 1 change nothing.
        blur: standard deviation, in 64ths of the image's width.
        noise: standard deviation; white is 1.
        quality: of the camera's JPEG compression, before the archive's.
        stretch: how much wider than high a body appears.
        taper: how much wider the head appears than the feet, as the camera looks down.
        lean: how far a body leans, x over y.
        horizon: where the wall meets the ground, in image heights from the top.
        wall, ground: two colours of each.
        cell: the wall's pattern, width, height and joint in image widths; None is foliage.
        slabs: whether the ground has slabs.
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
    slabs: bool


CAMERAS = (
    Camera(
        cast=(1.04, 1.00, 0.92), gamma=0.96, contrast=1.02, brightness=0.02, saturation=1.00,
        blur=0.35, noise=0.015, quality=85, stretch=1.00, taper=0.10, lean=0.00, horizon=0.42,
        wall=((74, 112, 62), (48, 84, 46)), cell=None,
        ground=((196, 186, 170), (168, 158, 144)), slabs=True,
    ),
    Camera(
        cast=(0.90, 0.98, 1.08), gamma=1.10, contrast=0.94, brightness=-0.01, saturation=0.88,
        blur=0.55, noise=0.030, quality=70, stretch=1.10, taper=0.25, lean=0.06, horizon=0.36,
        wall=((136, 140, 150), (62, 80, 104)), cell=(0.5, 0.42, 0.14),
        ground=((106, 110, 116), (92, 96, 102)), slabs=False,
    ),
    Camera(
        cast=(1.08, 0.98, 0.86), gamma=1.04, contrast=0.98, brightness=0.00, saturation=0.90,
        blur=0.45, noise=0.025, quality=70, stretch=0.92, taper=0.05, lean=-0.05, horizon=0.55,
        wall=((190, 170, 150), (160, 96, 76)), cell=(0.2, 0.1, 0.02),
        ground=((156, 144, 132), (130, 120, 110)), slabs=True,
    ),
    Camera(
        cast=(0.92, 1.05, 0.92), gamma=0.96, contrast=0.89, brightness=0.04, saturation=0.85,
        blur=0.60, noise=0.020, quality=60, stretch=1.05, taper=0.35, lean=0.00, horizon=0.30,
        wall=((160, 160, 154), (206, 204, 194)), cell=(0.7, 3.0, 0.02),
        ground=((180, 174, 162), (196, 190, 180)), slabs=False,
    ),
    Camera(
        cast=(1.00, 1.02, 1.06), gamma=0.88, contrast=0.87, brightness=0.06, saturation=0.90,
        blur=0.60, noise=0.020, quality=75, stretch=0.97, taper=0.15, lean=0.08, horizon=0.38,
        wall=((150, 176, 126), (118, 146, 100)), cell=None,
        ground=((150, 172, 110), (126, 152, 92)), slabs=False,
    ),
    Camera(
        cast=(1.05, 0.94, 1.03), gamma=1.12, contrast=1.08, brightness=0.02, saturation=1.00,
        blur=0.40, noise=0.035, quality=65, stretch=1.12, taper=0.20, lean=-0.08, horizon=0.48,
        wall=((92, 84, 96), (236, 208, 150)), cell=(0.9, 0.7, 0.08),
        ground=((94, 94, 98), (124, 122, 124)), slabs=True,
    ),
)  # fmt: skip


def photograph(picture: Image.Image, camera: Camera, rng: np.random.Generator) -> bytes:
    """Return the picture as JPEG, with the camera's colours and faults and a random light."""
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
    pixels = np.asarray(sharp.filter(ImageFilter.GaussianBlur(blur))).astype(np.float32)
    pixels += rng.normal(0, 255 * camera.noise, pixels.shape)
    jpeg = _compress(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), camera.quality)
    return _compress(Image.open(io.BytesIO(jpeg)), JPEG_QUALITY)


def _compress(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
