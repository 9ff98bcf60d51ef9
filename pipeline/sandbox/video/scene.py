"""Paints the moving part of a clip: hills and a sun, in colours and forms of their own for each look. Pure.

The hills are sums of sines that travel a whole number of periods a loop, so that the loop has no seam.
"""

from __future__ import annotations

import io
from colorsys import hsv_to_rgb
from functools import lru_cache
from math import cos, sin, tau
from typing import Final

from PIL import Image, ImageDraw, ImageOps

LOOKS: Final = 13
HILLS: Final = 5

Rgb = tuple[int, int, int]


def paint_scene(width: int, height: int, phase: float, look: int) -> Image.Image:
    """An RGB picture of that size at `phase` in [0, 1) of the loop; looks repeat after `LOOKS`."""
    look %= LOOKS
    image = _background(width, height, look).copy()
    draw = ImageDraw.Draw(image)
    step = max(2, width // 120)
    for hill in range(HILLS):
        crest = [(x, height * _crest(x / width, hill, phase, look)) for x in range(0, width + step, step)]
        draw.polygon([*crest, (width, height), (0, height)], fill=_hill_colour(hill, look))
    return image


def show_picture(picture: bytes, size: tuple[int, int], phase: float) -> Image.Image:
    """A picture that fills the size and comes a little closer and goes again; `phase` is as above."""
    image = _cropped(picture, size)
    zoom = 1 + 0.04 * (1 - cos(tau * phase))
    margin = (1 - 1 / zoom) / 2
    box = (
        image.width * margin,
        image.height * margin,
        image.width * (1 - margin),
        image.height * (1 - margin),
    )
    return image.resize(size, Image.Resampling.BILINEAR, box)


@lru_cache(maxsize=4)
def _cropped(picture: bytes, size: tuple[int, int]) -> Image.Image:
    """Its middle part, of the form of `size`, twice as large, so that it is sharp when it comes closer.

    A photograph has a hundred times the pixels of a frame: all of them in each would take seconds a clip.
    """
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    return ImageOps.fit(whole, (2 * size[0], 2 * size[1]), Image.Resampling.BILINEAR)


def _colour(look: int, turn: float, saturation: float, value: float) -> Rgb:
    """A colour of the look: `turn` is how far it lies from the look's own hue."""
    hue = look * 0.618 + turn  # the golden ratio keeps the hues of neighbours apart
    red, green, blue = hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _hill_colour(hill: int, look: int) -> Rgb:
    share = hill / (HILLS - 1)
    return _colour(look, -0.06 * share, 0.5 + 0.15 * share, 0.8 - 0.62 * share)


def _crest(x: float, hill: int, phase: float, look: int) -> float:
    """The crest's height at `x` (0 to 1 across), as a share of the picture from its top."""
    swell = 0.05 * sin(tau * (0.9 * x + phase) + hill * 1.9 + look)
    ripple = 0.02 * sin(tau * (2.1 * x - phase) + hill * 4.1 + look * 2)
    return 0.5 + 0.1 * hill + (swell + ripple) * (0.7 + 0.1 * hill)


@lru_cache(maxsize=LOOKS)
def _background(width: int, height: int, look: int) -> Image.Image:
    top, horizon = _colour(look, -0.15, 0.7, 0.25), _colour(look, 0.06, 0.45, 1.0)
    ramp = Image.linear_gradient("L").resize((width, height), Image.Resampling.BICUBIC)
    sky = ImageOps.colorize(ramp, top, horizon, mid=_colour(look, -0.05, 0.5, 0.6))
    size = round(min(width, height) * 0.32)
    centre_x, centre_y = width * (0.25 + look % 5 * 0.12), height * (0.3 + look % 3 * 0.06)
    disc = Image.new("L", (size * 2, size * 2))
    ImageDraw.Draw(disc).ellipse((0, 0, size * 2 - 1, size * 2 - 1), fill=255)
    disc = disc.resize((size, size), Image.Resampling.LANCZOS)
    sky.paste(_colour(look, 0.12, 0.2, 1.0), (round(centre_x - size / 2), round(centre_y - size / 2)), disc)
    return sky
