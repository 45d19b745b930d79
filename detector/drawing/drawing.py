"""Boxes with names on images, for people to look at."""

from __future__ import annotations

import colorsys
import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
PAPER = (246, 246, 244)
"""What lies between the images of a grid."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""Turns of the colour circle from a class to the next: no other step keeps all so far apart."""

TONES = ((0.85, 1.00), (0.95, 0.70), (0.45, 1.00), (0.60, 0.80), (1.00, 0.90))
"""(saturation, value) of the classes in turn, so that two of almost the same hue differ too."""


WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Files of fonts with more than ASCII, of which a machine may have one."""


@dataclass(frozen=True)
class Mark:
    """What is drawn for an object.

    box: xyxy in pixels. label: a class, which gives the colour. text: beside the box; may be empty.
    is_dashed: for crowds. is_thin: one pixel wide and without an edge, for anchors.
    """

    box: Box
    label: int
    text: str = ""
    is_dashed: bool = False
    is_thin: bool = False


def draw(pixels: NDArray[np.uint8], marks: Iterable[Mark], enlarge: int = 1) -> Image.Image:
    """A copy of (H, W, 3) pixels with the marks, the first on top; `enlarge` times as large.

    Lines and letters grow with the image. Where there is room, no name covers another.
    """
    image = Image.fromarray(pixels)
    if enlarge > 1:
        image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.BOX)
    canvas = ImageDraw.Draw(image)
    side = math.sqrt(image.width * image.height)
    width = max(2, round(side / 260))
    marks = [_scaled(mark, enlarge) for mark in marks]
    for mark in sorted(marks, key=lambda mark: not mark.is_thin):
        if mark.is_thin:
            canvas.rectangle(_corners(mark.box), outline=color(mark.label))
    for mark in reversed(marks):
        if not mark.is_thin:
            _frame(canvas, mark, width, image.size)
    named = [mark for mark in marks if mark.text]
    font = _font_for([mark.text for mark in named], max(10, round(side / 38)))
    places: list[Box] = []
    for mark in named:
        extent = _extent(mark.text, font)
        places.append(_place(mark.box, width + 2, extent, image.size, places))
    for mark, place in reversed(list(zip(named, places, strict=True))):
        _name(canvas, mark, place, font)
    return image


def color(label: int) -> Color:
    """The colour of a class, always the same."""
    saturation, value = TONES[label % len(TONES)]
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def readable_on(background: Color) -> Color:
    """Black or white, whichever stands out more (relative luminance, ITU-R BT.709)."""
    red, green, blue = ((value / 255) ** 2.2 for value in background)
    return BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else WHITE


def captioned(image: Image.Image, text: str) -> Image.Image:
    """The image below a line of text, as much of it as there is room for."""
    font = _font_for([text], 14)
    result = Image.new("RGB", (image.width, image.height + 20), PAPER)
    while text and font.getlength(text) > image.width - 4:
        text = text[:-1]
    ImageDraw.Draw(result).text((2, 1), text, BLACK, font)
    result.paste(image, (0, 20))
    return result


def grid(images: Sequence[Image.Image], columns: int | None = None, gap: int = 8) -> Image.Image:
    """The images in rows, as many as columns unless told, each in a cell of the largest."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = (max(sizes) + gap for sizes in zip(*(i.size for i in images), strict=True))
    result = Image.new("RGB", (columns * width + gap, rows * height + gap), PAPER)
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        result.paste(image, (gap + column * width, gap + row * height))
    return result


def _scaled(mark: Mark, factor: int) -> Mark:
    x1, y1, x2, y2 = (value * factor for value in mark.box)
    return Mark((x1, y1, x2, y2), mark.label, mark.text, mark.is_dashed, mark.is_thin)


def _corners(box: Box, grow: int = 0) -> tuple[int, int, int, int]:
    """First and last pixel of a box, at least one; `grow` more on each side."""
    x1, y1, x2, y2 = (round(value) for value in box)
    return x1 - grow, y1 - grow, max(x1, x2 - 1) + grow, max(y1, y2 - 1) + grow


def _frame(canvas: ImageDraw.ImageDraw, mark: Mark, width: int, size: tuple[int, int]) -> None:
    """The lines of a box, with a dark edge that keeps them visible on their own colour.

    Outside the box, since a bird of ten pixels would disappear below its own frame, but inside the
    image, which is of `size` (width, height).
    """
    corners = _corners(mark.box, width + 1)
    limits = (size[0] - 1, size[1] - 1, size[0] - 1, size[1] - 1)
    x1, y1, x2, y2 = (min(max(c, 0), limit) for c, limit in zip(corners, limits, strict=True))
    if mark.is_dashed:
        for dash in _dashes((x1, y1, x2, y2), width):
            canvas.rectangle(dash, color(mark.label), BLACK)
        return
    canvas.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=BLACK, width=width + 2)
    canvas.rectangle((x1, y1, x2, y2), outline=color(mark.label), width=width)


def _dashes(corners: tuple[int, int, int, int], width: int) -> list[tuple[int, int, int, int]]:
    """Filled rectangles along the sides of a box."""
    x1, y1, x2, y2 = corners
    width, length, step = width + 2, 5 * width, 8 * width
    dashes = []
    for x in range(x1, x2 + 1, step):
        end = min(x + length, x2)
        dashes += [(x, y1, end, y1 + width - 1), (x, y2 - width + 1, end, y2)]
    for y in range(y1, y2 + 1, step):
        end = min(y + length, y2)
        dashes += [(x1, y, x1 + width - 1, end), (x2 - width + 1, y, x2, end)]
    return dashes


def _extent(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height of a name with the space around it."""
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(_line(text))) + 6, ascent + descent + 2


def _place(
    box: Box, space: int, extent: tuple[int, int], size: tuple[int, int], taken: Sequence[Box]
) -> Box:
    """Where the name of a box goes: above it, else below, else inside, else over another name.

    space: pixels that its frame takes around it. extent, size: width and height of the name and of
    the image. taken: where names are already.
    """
    width, height = extent
    x1, y1, x2, y2 = _corners(box, space)
    lefts = [min(max(x, 0), max(0, size[0] - width)) for x in (x1, x2 + 1 - width)]
    tops = [y1 - height, y2 + 1, y1, y2 + 1 - height]
    places = [
        (left, top, left + width, top + height)
        for top in tops
        if 0 <= top <= size[1] - height
        for left in lefts
    ]
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    top = min(max(y1, 0), max(0, size[1] - height))
    return [*free, *places, (lefts[0], top, lefts[0] + width, top + height)][0]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name(
    canvas: ImageDraw.ImageDraw, mark: Mark, place: Box, font: ImageFont.FreeTypeFont
) -> None:
    background = color(mark.label)
    x1, y1, x2, y2 = place
    canvas.rectangle((x1, y1, x2 - 1, y2 - 1), background, BLACK)
    canvas.text((x1 + 3, y1 + 1), _line(mark.text), readable_on(background), font)


def _line(text: str) -> str:
    return " ".join(text.split())


def _font_for(texts: Iterable[str], size: int) -> ImageFont.FreeTypeFont:
    return _font(size, all(text.isascii() for text in texts))


@lru_cache(maxsize=16)
def _font(size: int, is_ascii: bool) -> ImageFont.FreeTypeFont:
    """Pillow's own letters, the same on every machine; they are those of ASCII.

    For others a font of the machine, where it has one; what a font lacks is drawn as a small box.
    """
    for name in () if is_ascii else WIDE_FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
