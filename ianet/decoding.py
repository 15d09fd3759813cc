"""Pictures as RGB pixels, as a viewer shows them."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as Tag
from PIL.Image import Transpose
from PIL.PngImagePlugin import PngImageFile

# What Pillow warns of is decoded all the same. A filter for each call would not suit threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
"""Pillow's names of the formats that have a suffix in `ianet.datasets.listing`.

Pillow hands content of some other formats to programs: EPS, which can compute, to Ghostscript.
"""
BACKGROUND = "white"  # behind transparent pixels, as on a page

SCALES = {"L;2": 85, "L;4": 17, "I;16B": 1, "RGB;16B": 2**-8}
"""What a PNG's transparent colour times is a pixel's, by Pillow's name of how pixels are stored.

Pillow scales the pixels, and leaves the colour as it is.
"""

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
        content: of a file, in one of `FORMATS` that Pillow reads.

    Raises:
        ValueError: the content is damaged, of an unknown format, or has 32-bit pixels. The message
            is one line.
    """
    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]  # HEIF needs a plugin
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return to_viewed(image)
    except UnidentifiedImageError as error:
        reason = "cannot identify image: the content is no picture that Pillow reads"
        raise ValueError(reason) from error
    except Exception as error:  # Pillow raises errors of many types for damaged content
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from error


def to_viewed(image: Image.Image) -> Image.Image:
    """Return a picture as a viewer shows it, in RGB.

    The picture is turned as EXIF says. Transparent pixels lie on `BACKGROUND`. 16-bit pixels keep
    their upper 8 bits, by which also the transparent colour of RGB is found. Colour profiles are
    not applied. Of several frames the first counts.

    Raises:
        ValueError: 32-bit pixels.
        Exception: what Pillow raises for damaged content that is not loaded yet.
    """
    form = str(image.tile[0].args) if isinstance(image, PngImageFile) and image.tile else ""
    image.load()  # which turns a TIFF, and removes its orientation
    turn = _find_turn(image)
    picture = _convert(image, _find_clear(image, form))
    return picture if turn is None else picture.transpose(turn)


def _find_turn(image: Image.Image) -> Transpose | None:
    with suppress(Exception):  # damaged EXIF turns nothing, as in viewers
        return TURNS.get(image.getexif().get(Tag.Orientation, 1))
    return None


def _find_clear(image: Image.Image, form: str) -> NDArray[np.bool_] | None:
    """Return which pixels have the transparent colour, (H, W); None where Pillow finds them.

    Args:
        image: whose pixels are loaded.
        form: how a PNG stores them, one of `SCALES` or another.
    """
    colour = image.info.get("transparency")
    if colour is None or form not in SCALES:
        return None
    pixels = np.atleast_3d(np.asarray(image))
    clear: NDArray[np.bool_] = (pixels == np.floor(np.multiply(colour, SCALES[form]))).all(axis=2)
    return clear


def _convert(image: Image.Image, clear: NDArray[np.bool_] | None) -> Image.Image:
    # Pillow scales a PGM of more than 8 bits to 16, in pixels of 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        image = _reduce(image)
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range: save the image with 8 or 16 bits")
    if clear is not None:
        picture = image.convert("RGB")
        picture.paste(BACKGROUND, mask=Image.fromarray(clear))
        return picture
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
