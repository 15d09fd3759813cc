"""The layer on which a body is drawn, as a camera sees it.

Bodies are measured in statures: a person is 1 high, x points to the person's left, y down from
the crown of the head and z to where the person faces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ianet.synthetic.cameras import Camera
from ianet.synthetic.palette import TEXTURES, Colour
from ianet.synthetic.people import Garment

Joint = tuple[float, float, float]
"""x, y and z in statures."""
Spot = tuple[float, float]
"""x and y in pixels of a layer that is `OVERSAMPLING` times as large as the image."""
Paint = Colour | Image.Image
"""One colour, or a cloth as large as the layer."""
OVERSAMPLING = 3  # Pillow draws jagged edges: layers are drawn larger, then averaged


class Figure:
    """A transparent layer, and the place of a body in the layer.

    Args:
        camera: that sees the body.
        size: width and height of the image, in pixels.
        facing: in radians; 0 is towards the camera, pi away from the camera.
        centre: of the body, in image widths from the left.
        feet: in image heights from the top.
        stature: of the body, in image heights.
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
        width, height = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
        self.layer = Image.new("RGBA", (width, height))
        self.camera = camera
        self.sine, self.cosine = math.sin(facing), math.cos(facing)
        self.centre, self.feet, self.stature = centre * width, feet * height, stature * height

    def depth(self, joint: Joint) -> float:
        """Return how much nearer to the camera a joint is than the body's axis, in statures."""
        return joint[2] * self.cosine - joint[0] * self.sine

    def scale(self, y: float) -> float:
        """Return the pixels of a stature across the body at height y of the body."""
        return self.stature * self.camera.stretch * (1 + self.camera.taper * (0.5 - y))

    def spot(self, joint: Joint) -> Spot:
        """Return where the camera sees a joint."""
        x, y, z = joint
        across = (x * self.cosine + z * self.sine) * self.scale(y)
        lean = self.camera.lean * (1 - y)
        fall = 0.4 * self.camera.taper * self.depth(joint)  # the camera looks down: near is lower
        return self.centre + across + lean * self.stature, self.feet + (y - 1 + fall) * self.stature

    def draw_limb(self, paint: Paint, *joints: tuple[Joint, float]) -> None:
        """Draw a chain of bones from joint to joint; each joint has a radius in statures."""
        discs = [(*self.spot(joint), radius * self.stature) for joint, radius in joints]

        def shape(draw: ImageDraw.ImageDraw, ink: Colour | int) -> None:
            for x, y, r in discs:
                draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
            for (x, y, r), (p, q, s) in itertools.pairwise(discs):
                length = math.hypot(p - x, q - y) or 1.0
                u, v = (y - q) / length, (p - x) / length  # across the bone
                side = [(x + u * r, y + v * r), (p + u * s, q + v * s)]
                draw.polygon([*side, (p - u * s, q - v * s), (x - u * r, y - v * r)], fill=ink)

        self._fill(paint, shape)

    def draw_trunk(
        self, paint: Paint, *rings: tuple[float, float, float], axis: tuple[float, float] = (0, 0)
    ) -> None:
        """Draw a solid of rings, from the top, around the upright at x and z of `axis`.

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

    def weave(self, garment: Garment) -> Image.Image:
        """Return the garment's texture all over the layer."""
        columns, rows = self.layer.size
        x = (np.arange(columns)[None, :] - self.spot((0.0, 0.3, 0.08))[0]) / self.scale(0.3)
        y = 1 + (np.arange(rows)[:, None] - self.feet) / self.stature
        from_behind = garment.texture == "logo" and self.cosine < 0.2
        second = TEXTURES["plain" if from_behind else garment.texture](x, y)
        cloth = Image.new("RGBA", self.layer.size, garment.colour)
        cloth.paste(garment.second, mask=Image.fromarray(second))
        return cloth

    def darken(self) -> None:
        """Darken the layer, before nearer parts of the body are drawn above."""
        self.layer.paste((0, 0, 0), mask=self.layer.getchannel("A").point(lambda a: 0.22 * a))

    def render(self) -> Image.Image:
        """Return the layer at the size of the image, with light from the left."""
        layer = self.layer.reduce(OVERSAMPLING)
        soft = layer.getchannel("A").filter(ImageFilter.GaussianBlur(layer.width / 24))
        light = np.gradient(np.asarray(soft, np.float32), axis=1) * (layer.width / 4080)
        pixels = np.asarray(layer).astype(np.float32)
        pixels[..., :3] *= 1 + light.clip(-0.3, 0.15)[..., None]
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
