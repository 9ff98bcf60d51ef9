"""Paints the moving part of a clip: waves of light at dusk that return, after `LOOP_S`, to where they began.

Pure: a size and a phase in, a picture out. The waves are sums of sines that each travel a whole number
of periods a loop, so that the loop has no seam and still never looks like a scrolling tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

LOOP_S: Final = 4
FULL_CIRCLE: Final = 2 * pi

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one dusk: the sky from top to horizon, the sun, the waves from far to near."""

    sky: tuple[Rgb, Rgb, Rgb]
    sun: Rgb
    glow: Rgb
    far: Rgb
    near: Rgb


DUSK: Final = Palette(
    ((18, 20, 54), (112, 52, 116), (255, 158, 112)),
    (255, 226, 178),
    (240, 106, 96),
    (232, 112, 120),
    (22, 20, 58),
)
WAVES: Final = 7


def paint_scene(width: int, height: int, phase: float, palette: Palette = DUSK) -> Image.Image:
    """An RGB picture of the scene at `phase` in [0, 1) of the loop."""
    image = _sky(width, height, palette).copy()
    _paste_sun(image, phase, palette)
    for index in range(WAVES):
        mask = _wave_mask(width, height, index, phase)
        image.paste(_wave_fill(width, height, index, palette), (0, 0), mask)
    return image


def blend(one: Rgb, other: Rgb, share: float) -> Rgb:
    """The colour that lies `share` of the way from `one` to `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


@lru_cache(maxsize=8)
def _sky(width: int, height: int, palette: Palette) -> Image.Image:
    column = Image.new("RGB", (1, 256))
    for row in range(256):
        share = row / 170
        top, middle, low = palette.sky
        colour = blend(top, middle, share) if share < 1 else blend(middle, low, min(1.0, share - 1 + 0.12))
        if share < 1:
            colour = blend(top, blend(middle, low, share * 0.45), share)
        column.putpixel((0, row), colour)
    return column.resize((width, height), Image.Resampling.BICUBIC)


@lru_cache(maxsize=8)
def _sun(size: int, palette: Palette) -> tuple[Image.Image, Image.Image]:
    """The sun within its glow: their colours, and the mask through which they shine."""
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((size * 0.22, size * 0.22, size * 0.78, size * 0.78), fill=105)
    mask = mask.filter(ImageFilter.GaussianBlur(size * 0.09))
    disc = Image.new("L", (size * 2, size * 2), 0)
    ImageDraw.Draw(disc).ellipse((size * 0.72, size * 0.72, size * 1.28, size * 1.28), fill=255)
    disc = disc.resize((size, size), Image.Resampling.LANCZOS)
    mask.paste(disc, (0, 0), disc)
    colours = Image.new("RGB", (size, size), palette.glow)
    colours.paste(palette.sun, (0, 0), disc)
    return colours, mask


def _paste_sun(image: Image.Image, phase: float, palette: Palette) -> None:
    size = max(8, round(min(image.size) * 0.95))
    colour, mask = _sun(size, palette)
    centre_x = image.width * 0.64
    centre_y = image.height * (0.40 + 0.012 * sin(FULL_CIRCLE * phase))
    image.paste(colour, (round(centre_x - size / 2), round(centre_y - size / 2)), mask)


@lru_cache(maxsize=32)
def _wave_fill(width: int, height: int, index: int, palette: Palette) -> Image.Image:
    share = index / (WAVES - 1)
    crest, trough = (
        blend(palette.far, palette.near, share),
        blend(palette.far, palette.near, min(1.0, share + 0.3)),
    )
    column = Image.new("RGB", (1, 64))
    for row in range(64):
        column.putpixel((0, row), blend(crest, trough, row / 63))
    return column.resize((width, height), Image.Resampling.BICUBIC)


def _wave_mask(width: int, height: int, index: int, phase: float) -> Image.Image:
    step = max(2, width // 160)
    points = [(x, height * _crest_height(x / width, index, phase)) for x in range(0, width + step, step)]
    mask = Image.new("L", (width, height), 0)
    opacity = 150 + round(105 * index / (WAVES - 1))
    draw = ImageDraw.Draw(mask)
    draw.line([(x, y - 0.5) for x, y in points], fill=opacity // 2)
    draw.polygon([*points, (width, height), (0, height)], fill=opacity)
    return mask


def _crest_height(x: float, index: int, phase: float) -> float:
    """The height of wave `index` at `x` (0 to 1 across), as a share of the picture from its top."""
    base = 0.46 + 0.075 * index
    swell = 0.050 * sin(FULL_CIRCLE * (0.9 * x + phase) + index * 1.9)
    ripple = 0.022 * sin(FULL_CIRCLE * (2.1 * x - phase) + index * 4.1)
    glint = 0.009 * cos(FULL_CIRCLE * (4.3 * x + 2 * phase) + index * 2.7)
    return base + (swell + ripple + glint) * (0.65 + 0.09 * index)
