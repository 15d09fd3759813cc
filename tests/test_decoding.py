"""Pictures as a viewer shows them: pixels worked out by hand, and those of Chromium."""

from __future__ import annotations

import base64
import io
import re
import struct
import subprocess
import sys
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from browser import needs_browser, open_page, start_browser
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag

from ianet.datasets.listing import IMAGES
from ianet.decoding import FORMATS, decode


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> NDArray[np.uint8]:
    """The decoded picture, (H, W, 3)."""
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


# By hand.


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, "ABC DEF"), (2, "CBA FED"), (3, "FED CBA"), (4, "DEF ABC"),
        (5, "AD BE CF"), (6, "DA EB FC"), (7, "FC EB DA"), (8, "CF BE AD"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_a_picture_stands_upright(
    orientation: int, upright: str, kind: str, options: dict[str, str], mode: str
) -> None:
    """The letters ABC above DEF are stored, as bytes; EXIF says where their top is."""
    stored = np.array([list(b"ABC"), list(b"DEF")])
    if mode == "RGB":
        image = Image.fromarray(stored.astype(np.uint8)).convert("RGB")
    else:
        image = Image.fromarray((stored * 256).astype(np.uint16))
    exif = Image.Exif()
    exif[Tag.Orientation] = orientation
    levels = pixels(encode(image, kind, exif=exif, **options))
    rows = [list(row.encode()) for row in upright.split()]
    assert levels[..., 0].tolist() == rows
    assert (levels == levels[..., :1]).all()


@pytest.mark.parametrize("orientation", [b"no TIFF", 0, 9])
def test_exif_without_a_meaning_leaves_a_picture_as_it_is(orientation: bytes | int) -> None:
    exif: Image.Exif | bytes = Image.Exif()
    if isinstance(orientation, int):
        exif[Tag.Orientation] = orientation
    else:
        exif = b"Exif\0\0" + orientation
    image = Image.linear_gradient("L").resize((3, 2)).convert("RGB")
    assert np.array_equal(pixels(encode(image, "PNG", exif=exif)), np.asarray(image))


GREY = [[0, 255, 256, 32_768, 65_535]]
BYTES = [0, 0, 1, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled(kind: str) -> None:
    levels = pixels(encode(Image.fromarray(np.array(GREY, np.uint16)), kind))
    assert levels.tolist() == [[[value] * 3 for value in BYTES]]


def tiff(order: str, bits: int, white: int, data: bytes) -> bytes:
    """A grey TIFF of a row of five pixels; `white` 0 makes 0 white."""
    mark = b"II" if order == "<" else b"MM"
    tags = {256: 5, 257: 1, 258: bits, 259: 1, 262: white, 273: 122, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()
    )
    return struct.pack(f"{order}2sHIH", mark, 42, 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize(
    ("order", "bits", "white", "data", "expected"),
    [
        ("<", 16, 1, struct.pack("<5H", *GREY[0]), BYTES),
        (">", 16, 1, struct.pack(">5H", *GREY[0]), BYTES),
        ("<", 16, 0, struct.pack("<5H", *GREY[0]), [255 - value for value in BYTES]),
        # 0, 0x00F, 0x010, 0x800 and 0xFFF, two pixels in three bytes.
        ("<", 12, 1, bytes.fromhex("00000F 010800 FFF0"), BYTES),
    ],
)
def test_grey_of_a_tiff(
    order: str, bits: int, white: int, data: bytes, expected: list[int]
) -> None:
    assert pixels(tiff(order, bits, white, data))[0, :, 1].tolist() == expected


def test_16_bits_of_a_pgm_are_scaled() -> None:
    levels = pixels(b"P5 5 1 65535\n" + struct.pack(">5H", *GREY[0]))
    assert levels.tolist() == [[[value] * 3 for value in BYTES]]
    # A third of the range, of 10 bits.
    assert pixels(b"P5 4 1 1023\n" + struct.pack(">4H", 0, 341, 682, 1023))[0, :, 2].tolist() == [
        0, 85, 170, 255,
    ]  # fmt: skip


def png(bits: int, kind: int, colour: bytes, rows: list[bytes], width: int) -> bytes:
    """A PNG with a transparent colour; `kind` 0 is grey, 2 is RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    data = compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"tRNS", colour), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


TRANSPARENT = {
    1: (png(1, 0, b"\0\0", [b"\x40"], 2), [255, 255]),
    2: (png(2, 0, b"\0\1", [b"\x1b"], 4), [0, 255, 170, 255]),
    4: (png(4, 0, b"\0\5", [b"\x05\xaf"], 4), [0, 255, 170, 255]),
    8: (png(8, 0, b"\0\5", [bytes([5, 85, 6])], 3), [255, 85, 6]),
    # 256 and 257 are not the transparent 258.
    16: (png(16, 0, b"\1\2", [struct.pack(">4H", 256, 257, 258, 515)], 4), [1, 1, 255, 2]),
}
"""By their bits, grey PNGs with a transparent colour, and what is seen on white."""


@pytest.mark.parametrize("bits", TRANSPARENT)
def test_the_transparent_grey_of_a_png_is_white(bits: int) -> None:
    content, expected = TRANSPARENT[bits]
    assert pixels(content)[0].tolist() == [[value] * 3 for value in expected]


def test_the_transparent_colour_of_16_bits_is_white() -> None:
    colours = [(100, 200, 300), (0, 0, 300), (25_600, 51_200, 11_264), (65_535, 100, 200)]
    row = struct.pack(">12H", *(value for colour in colours for value in colour))
    levels = pixels(png(16, 2, struct.pack(">3H", *colours[3]), [row], 4))
    assert levels.tolist() == [[[0, 0, 1], [0, 0, 1], [100, 200, 44], [255, 255, 255]]]
    # Of 8 bits, (100, 200, 300) would be (100, 200, 44).
    levels = pixels(png(16, 2, struct.pack(">3H", *colours[0]), [row], 4))
    assert levels[0, 2:].tolist() == [[100, 200, 44], [255, 0, 0]]
    assert levels[0, 0].tolist() == [255, 255, 255]


def test_only_formats_that_have_a_suffix_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS would be run by Ghostscript, under whatever name."""
    suffixes = Image.registered_extensions()
    assert {suffixes[suffix] for suffix in IMAGES if suffix in suffixes} == {*FORMATS} - {"HEIF"}
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("it was run"))
    image = Image.new("RGB", (8, 8))
    for content in (encode(image, "EPS"), encode(image, "ICO"), encode(image, "PDF")):
        with pytest.raises(ValueError, match=r"the content is no picture that Pillow reads$"):
            decode(content)


def test_warnings_of_pillow_are_not_shown() -> None:
    """Of a TIFF whose end is missing, and of a picture of 95 million pixels."""
    code = (
        "import io; from PIL import Image; from ianet.decoding import decode\n"
        "file = io.BytesIO(); Image.new('1', (10_000, 9_500)).save(file, 'PNG')\n"
        "print(decode(file.getvalue()).size)\n"
        "try: decode(b'II*\\0\\x08' + bytes(5))\n"
        "except ValueError as error: print(error)\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert outcome.stderr == ""
    assert outcome.stdout.splitlines() == [
        "(10000, 9500)",
        "cannot identify image: the content is no picture that Pillow reads",
    ]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bits_are_refused(kind: type) -> None:
    content = encode(Image.fromarray(np.zeros((2, 2), kind)), "TIFF")
    with pytest.raises(ValueError, match="32-bit pixels have no known range: save the image with"):
        decode(content)


def test_what_is_transparent_lies_on_white() -> None:
    """0.2 of the colour, and 0.8 of white, which is 204."""
    levels = pixels(encode(Image.new("RGBA", (1, 1), (200, 0, 100, 51)), "PNG"))
    assert levels.tolist() == [[[244, 204, 224]]]
    levels = pixels(encode(Image.new("LA", (1, 1), (100, 51)), "PNG"))
    assert levels.tolist() == [[[224, 224, 224]]]
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 100, 10, 20, 30])
    image.putpixel((1, 0), 1)
    levels = pixels(encode(image, "PNG", transparency=bytes([51, 255])))
    assert levels.tolist() == [[[244, 204, 224], [10, 20, 30]]]
    levels = pixels(encode(image, "GIF", transparency=1))
    assert levels.tolist() == [[[200, 0, 100], [255, 255, 255]]]


def test_ink_takes_light_away() -> None:
    """Cyan takes red, magenta green, yellow blue, and black takes from all: 0.8 * 0.8 * 255."""
    inks = Image.new("CMYK", (2, 1), (0, 255, 255, 0))
    inks.putpixel((1, 0), (51, 0, 0, 51))
    assert pixels(encode(inks, "TIFF")).tolist() == [[[255, 0, 0], [163, 204, 204]]]
    # Adobe's JPEG holds the light that each ink leaves.
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    stored = np.asarray(Image.open(io.BytesIO(encode(red, "JPEG", quality=100))))
    np.testing.assert_allclose(stored[8, 8], [0, 255, 255, 0], atol=2)
    levels = pixels(encode(red, "JPEG", quality=100))
    np.testing.assert_allclose(levels[8, 8], [255, 0, 0], atol=2)


def find_failure(content: bytes) -> str | None:
    try:
        decode(content)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_content_is_one_line(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    content = encode(Image.fromarray(noise), kind)
    generator = np.random.default_rng(1)
    damaged = [b"", b"no picture", content[: len(content) // 2], content[:20]]
    for _ in range(100):
        copy = bytearray(content)
        for place in generator.integers(0, 100, 5):
            copy[place] = generator.integers(256)
        damaged.append(bytes(copy))
    failures = [find_failure(each) for each in damaged]
    assert all(failures[:4])
    assert all(re.fullmatch(r"[^\n]+", failure) for failure in failures if failure is not None)


# Against a browser.


def colours() -> Image.Image:
    """Tiles that blend into each other, of which a JPEG loses little; (32, 24) pixels."""
    tiles = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
    return Image.fromarray(tiles).resize((24, 32), Image.Resampling.BILINEAR)


def pictures() -> dict[str, bytes]:
    """Pictures of every kind that a browser shows."""
    image, few = colours(), colours().quantize(16)
    ramp = np.linspace(0, 65_535, 24 * 32).astype(np.uint16).reshape(32, 24)
    alpha = Image.fromarray((ramp >> 8).astype(np.uint8))
    colour, grey = image.copy(), image.convert("L")
    colour.putalpha(alpha)
    grey.putalpha(alpha)
    jpeg: dict[str, Any] = {"quality": 95}
    cmyk = encode(image.convert("CMYK"), "JPEG", **jpeg)
    adobe = cmyk.index(b"\xff\xee")
    oriented = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[Tag.Orientation] = orientation
        oriented[f"turned JPEG {orientation}"] = encode(image, "JPEG", exif=exif, **jpeg)
        oriented[f"turned PNG {orientation}"] = encode(image, "PNG", exif=exif)
    return oriented | {
        "JPEG": encode(image, "JPEG", **jpeg),
        "grey JPEG": encode(image.convert("L"), "JPEG", **jpeg),
        "CMYK JPEG": cmyk,
        "CMYK JPEG without Adobe's mark": cmyk[:adobe] + cmyk[adobe + 16 :],
        "PNG": encode(image, "PNG"),
        "grey PNG": encode(image.convert("L"), "PNG"),
        "black and white PNG": encode(image.convert("1"), "PNG"),
        "16-bit PNG": encode(Image.fromarray(ramp), "PNG"),
        "RGBA PNG": encode(colour, "PNG"),
        "LA PNG": encode(grey, "PNG"),
        "PNG with a transparent colour": encode(image, "PNG", transparency=image.getpixel((3, 5))),
        "palette PNG": encode(few, "PNG"),
        "translucent palette PNG": encode(few, "PNG", transparency=bytes(range(0, 256, 16))),
        "transparent GIF": encode(few, "GIF", transparency=3),
        **{f"transparent {bits}-bit PNG": content for bits, (content, _) in TRANSPARENT.items()},
        "RGBA WebP": encode(colour, "WEBP", lossless=True, exact=True),
    }


SHOW = """
(urls) => Promise.all(urls.map(async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return {width: canvas.width, pixels: Array.from(pixels)};
}))
"""
"""The size and the pixels of pictures as a browser draws them."""


@needs_browser
def test_a_browser_shows_the_same() -> None:
    """On a white page; blending and JPEG's arithmetic may differ by a level or two."""
    contents = pictures()
    urls = [f"data:image;base64,{base64.b64encode(each).decode()}" for each in contents.values()]
    with start_browser() as browser, open_page(browser, "") as (page, _):
        answers = page.evaluate(SHOW, urls)
    assert len(answers) == len(contents)
    for (name, content), picture in zip(contents.items(), answers, strict=True):
        expected = np.array(picture["pixels"]).reshape(-1, picture["width"], 4)[..., :3]
        np.testing.assert_allclose(pixels(content), expected, rtol=0, atol=2, err_msg=name)
