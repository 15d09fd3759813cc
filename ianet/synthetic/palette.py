"""Colours and textures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# Few colours, on purpose: colour alone must not identify people.
UPPER_COLOURS: tuple[Colour, ...] = (
    (34, 34, 40), (236, 234, 228), (130, 132, 138), (34, 46, 100), (62, 116, 196),
    (192, 44, 48), (48, 122, 74), (234, 190, 66), (112, 74, 48), (228, 142, 168),
)  # fmt: skip
LOWER_COLOURS: tuple[Colour, ...] = (
    (38, 38, 42), (38, 48, 92), (84, 116, 164), (120, 122, 126), (198, 178, 140), (104, 72, 50),
)  # fmt: skip
SKINS = ((244, 208, 178), (226, 180, 142), (190, 138, 100), (128, 86, 60))
HAIR = ((32, 26, 24), (140, 72, 36), (218, 180, 104), (176, 176, 176))
ACCENTS = ((30, 30, 34), (238, 236, 230), (200, 40, 44), (236, 188, 50), (40, 104, 190))
METAL = (96, 100, 102)

TEXTURES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]] = {
    "plain": lambda x, y: (x > 9) & (y > 9),
    "stripes": lambda x, y: (y % 0.09 < 0.04) | (x > 9),
    "pinstripes": lambda x, y: (x % 0.06 < 0.022) | (y > 9),
    "checks": lambda x, y: (x % 0.09 < 0.045) ^ (y % 0.09 < 0.045),
    "dots": lambda x, y: (x % 0.07 - 0.035) ** 2 + (y % 0.07 - 0.035) ** 2 < 0.02**2,
    "band": lambda x, y: (abs(y - 0.31) < 0.045) | (x > 9),
    "halves": lambda x, y: (y > 0.33) | (x > 9),
    "logo": lambda x, y: x**2 + (y - 0.28) ** 2 < 0.045**2,
}
"""Name to where a cloth shows its second colour, from x and y in statures.

x is from the middle of the chest. The comparisons with 9 are false everywhere, and only broadcast.
"""


def shade(colour: Colour, light: float = 0.75) -> Colour:
    """Return the colour, darkened for a light below 1 and brightened above 1."""
    red, green, blue = colour
    return int(red * light), int(green * light), int(blue * light)
