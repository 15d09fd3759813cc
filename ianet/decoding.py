"""Pictures as RGB pixels, as a viewer shows them."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.Image import Transpose

BACKGROUND = "white"  # behind transparent pixels, as on a page

# By EXIF's orientation (CIPA DC-008, Section 4.6.5.1), what turns a picture upright.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def decode(content: bytes) -> Image.Image:
    """Return the picture in a file as a viewer shows it, see `to_viewed`.

    Args:
        content: of a file, in any format that Pillow reads.

    Raises:
        ValueError: the content is damaged, of an unknown format, or has 32-bit pixels. The message
            is one line.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_viewed(image)
    except Exception as error:  # Pillow raises errors of many types for damaged content
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from error


def to_viewed(image: Image.Image) -> Image.Image:
    """Return a picture as a viewer shows it, in RGB.

    The picture is turned as EXIF says. Transparent pixels lie on `BACKGROUND`. 16-bit pixels keep
    their upper 8 bits. Colour profiles are not applied. Of several frames the first counts.

    Raises:
        ValueError: 32-bit pixels.
        Exception: what Pillow raises for damaged content that is not loaded yet.
    """
    image.load()  # which turns a TIFF, and removes its orientation
    turn = _find_turn(image)
    picture = _convert(image)
    return picture if turn is None else picture.transpose(turn)


def _find_turn(image: Image.Image) -> Transpose | None:
    with suppress(Exception):  # damaged EXIF turns nothing, as in viewers
        return TURNS.get(image.getexif().get(Tag.Orientation, 1))
    return None


def _convert(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _reduce(image)
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range: save the image with 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    page = Image.new("RGBA", picture.size, BACKGROUND)
    return Image.alpha_composite(page, picture).convert("RGB")


def _reduce(image: Image.Image) -> Image.Image:
    """Return 16-bit grey in 8 bits."""
    tags = getattr(image, "tag_v2", {})  # a TIFF may have fewer bits, and 0 as white
    bits = tags.get(Tag.BitsPerSample, (16,))[0]
    pixels = (np.asarray(image) >> bits - 8).astype(np.uint8)
    return Image.fromarray(~pixels if tags.get(Tag.PhotometricInterpretation) == 0 else pixels)
