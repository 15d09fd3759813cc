"""What stands before a camera: wall and ground, shadows and obstacles."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ianet.synthetic import streams
from ianet.synthetic.cameras import CAMERAS
from ianet.synthetic.figure import OVERSAMPLING, Figure
from ianet.synthetic.palette import ACCENTS, METAL, shade


@cache
def draw_scene(number: int, height: int, width: int, seed: int) -> Image.Image:
    """Return what a camera sees without people, four images wide and one and a half high.

    Args:
        number: of the camera, from 0.
        height, width: of an image, in pixels.
        seed: of the set.
    """
    camera, rng = CAMERAS[number], np.random.default_rng([seed, streams.SCENES, number])
    columns, rows, floor = 4 * width, height * 3 // 2, int((camera.horizon + 0.25) * height)
    scene = Image.new("RGB", (columns, rows), camera.wall[0])
    draw = ImageDraw.Draw(scene)
    if camera.cell is None:
        for _ in range(900):
            x, y, r = rng.uniform(0, columns), rng.uniform(0, floor), rng.uniform(0.02, 0.1) * width
            leaf = shade(camera.wall[rng.integers(2)], rng.uniform(0.8, 1.15))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=leaf)
    else:
        across, high, joint = (length * width for length in camera.cell)
        for row, column in np.ndindex(math.ceil(floor / high), math.ceil(columns / across) + 1):
            x, y = (column - 0.5 * (row % 2)) * across, floor - (row + 1) * high
            cell = shade(camera.wall[1], rng.uniform(0.75, 1.1))
            draw.rectangle((x, y, x + across - joint, y + high - joint), fill=cell)
    draw.rectangle((0, floor, columns, rows), fill=camera.ground[0])
    if camera.slabs:
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


def draw_shadow(figure: Figure, size: tuple[int, int]) -> Image.Image:
    """Return a layer with a soft shadow, without which bodies seem to float."""
    x, y = figure.centre / OVERSAMPLING, figure.feet / OVERSAMPLING
    r = 0.16 * figure.stature / OVERSAMPLING
    layer = Image.new("RGBA", size)
    ImageDraw.Draw(layer).ellipse((x - r, y - r / 3, x + 1.6 * r, y + r / 5), fill=(0, 0, 0, 120))
    return layer.filter(ImageFilter.GaussianBlur(size[0] / 32))


def draw_obstacle(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a layer with a pole, a bicycle or a box at a random place."""
    width, height = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    x, ground = rng.uniform(0, width), rng.uniform(0.93, 1.05) * height
    ink = shade(ACCENTS[rng.integers(len(ACCENTS))], 0.85)
    match rng.integers(3):
        case 0:
            half = rng.uniform(0.04, 0.08) * width
            draw.rectangle((x - half, 0, x + half, ground), fill=METAL)
            draw.rectangle((x - half, 0, x - half / 3, ground), fill=shade(METAL, 1.3))
        case 1:
            r, line = rng.uniform(0.25, 0.32) * width, width // 40 + 1
            rear, front = (x - 1.15 * r, ground - r), (x + 1.15 * r, ground - r)
            for a, b in (rear, front):
                draw.ellipse((a - r, b - r, a + r, b + r), outline=shade(METAL, 0.4), width=line)
            saddle, bar = (x - 0.5 * r, ground - 2.1 * r), (x + 0.7 * r, ground - 2.3 * r)
            pedals = (x, ground - r)
            draw.line([rear, pedals, saddle, rear, saddle, bar, pedals, bar, front], ink, line)
            seat = (saddle[0] - r / 3, saddle[1], saddle[0] + r / 3, saddle[1])
            draw.line(seat, shade(METAL, 0.4), 2 * line)
        case _:
            half, top = rng.uniform(0.18, 0.35) * width, ground - rng.uniform(0.14, 0.28) * height
            draw.rectangle((x - half, top, x + half, ground), fill=ink)
            draw.rectangle((x - half, top, x + half, top + height / 40), fill=shade(ink))
    return layer.reduce(OVERSAMPLING)
