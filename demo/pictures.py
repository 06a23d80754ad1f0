"""Draw the six pictures of the demo album, one of each kind that matters; the same bytes each time.

Usage: python demo/pictures.py FOLDER
"""
# ruff: noqa: S311 - chance draws here, it guards nothing

from __future__ import annotations

import functools
import itertools
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Stops = Sequence[tuple[float, Colour]]

SIZE = (1620, 1080)
FINER = 2
"""Shapes are drawn this many times larger and scaled down, for smooth edges."""


def rgb(text: str) -> Colour:
    """The colour that six hex digits name."""
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`one` at share 0, `other` at share 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def gradient(size: tuple[int, int], stops: Stops) -> Image.Image:
    """Colours from top (0) to bottom (1)."""
    _, height = size
    column = Image.new("RGB", (1, height))
    for y in range(height):
        at = y / (height - 1)
        for (a, above), (b, below) in itertools.pairwise(stops):
            if a <= at <= b:
                column.putpixel((0, y), mix(above, below, (at - a) / (b - a)))
    return column.resize(size)


def sky(size: tuple[int, int], stops: Stops) -> Image.Image:
    """A gradient with a little grain, so that no bands show."""
    return ImageChops.add(gradient(size, stops), _grain(size), 1, -128)


@functools.cache
def _grain(size: tuple[int, int]) -> Image.Image:
    width, height = size
    tile = random.Random(1).randbytes((width // 2) * (height // 2))
    noise = Image.frombytes("L", (width // 2, height // 2), tile)
    noise = noise.resize(size, Image.Resampling.BICUBIC)
    return Image.merge("RGB", [Image.blend(Image.new("L", size, 128), noise, 0.02)] * 3)


def glow(
    picture: Image.Image, centre: tuple[float, float], radius: float, colour: Colour, power: float
) -> Image.Image:
    """`picture` with a light in it that fades out; `power` above 1 keeps it near the centre."""
    side = round(2 * radius)
    # radial_gradient has 255 in its corners, and 255 / √2 where a side is nearest
    fade = [round(255 * max(0, 1 - v * math.sqrt(2) / 255) ** power) for v in range(256)]
    lamp = Image.radial_gradient("L").point(fade)
    light = Image.new("L", picture.size)
    place = (round(centre[0] - radius), round(centre[1] - radius))
    light.paste(lamp.resize((side, side), Image.Resampling.BICUBIC), place)
    coloured = Image.merge("RGB", [light.point(lambda v, c=c: v * c // 255) for c in colour])
    return ImageChops.screen(picture, coloured)


def ridge(seed: int, width: int, height: float, roughness: float) -> list[float]:
    """Heights along a ridge, by midpoint displacement; 0 to 0.45 is smooth, 0.6 is rock."""
    chance = random.Random(seed)
    line = [chance.uniform(-1, 1) for _ in range(4)]
    step = 1.0
    while len(line) < width:
        step *= roughness
        halves = [(a + b) / 2 + chance.uniform(-step, step) for a, b in itertools.pairwise(line)]
        line = [value for pair in zip(line, halves, strict=False) for value in pair] + line[-1:]
    return [value * height for value in line[:width]]


def shape(
    picture: Image.Image, draw: Callable[[ImageDraw.ImageDraw, int], None], fill: Image.Image
) -> None:
    """Paste `fill` where `draw` paints white, with smooth edges."""
    mask = Image.new("L", (picture.width * FINER, picture.height * FINER))
    draw(ImageDraw.Draw(mask), FINER)
    picture.paste(fill, (0, 0), mask.resize(picture.size, Image.Resampling.BOX))


def land(
    picture: Image.Image,
    top: float,
    heights: Sequence[float],
    stops: Stops,
    fill: Callable[[tuple[int, int], Stops], Image.Image] = sky,
) -> None:
    """Fill what lies below a ridge whose mean is at `top`."""

    def draw(pen: ImageDraw.ImageDraw, finer: int) -> None:
        line = [(x * finer, (top + y) * finer) for x, y in enumerate(heights)]
        below = picture.height * finer
        pen.polygon([(0, below), *line, (line[-1][0] + finer, below)], fill=255)

    shape(picture, draw, fill(picture.size, stops))


def disc(picture: Image.Image, centre: tuple[float, float], radius: float, colour: Colour) -> None:
    """A round of one colour."""

    def draw(pen: ImageDraw.ImageDraw, finer: int) -> None:
        x, y = centre
        box = [
            (x - radius) * finer,
            (y - radius) * finer,
            (x + radius) * finer,
            (y + radius) * finer,
        ]
        pen.ellipse(box, fill=255)

    shape(picture, draw, Image.new("RGB", picture.size, colour))


def stars(picture: Image.Image, seed: int, count: int, bottom: float) -> None:
    """Stars between the top and `bottom`, most of them faint."""
    chance, pen = random.Random(seed), ImageDraw.Draw(picture, "RGBA")
    for _ in range(count):
        x, y = chance.uniform(0, picture.width), chance.uniform(0, bottom) * chance.random() ** 0.3
        bright = chance.random() ** 3
        radius = 0.6 + 1.3 * bright
        tint = mix(rgb("cfe0ff"), rgb("fff1d6"), chance.random())
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=(*tint, round(90 + 165 * bright)))


def alps() -> Image.Image:
    """Ranges in the morning mist, one behind the other."""
    width, height = SIZE
    dawn = [(0, "37517e"), (0.3, "8391b4"), (0.48, "f0b9a0"), (0.6, "fbdcae"), (1, "fde8c8")]
    picture = sky(SIZE, [(at, rgb(colour)) for at, colour in dawn])
    sun = (width * 0.66, height * 0.44)
    picture = glow(picture, sun, 700, rgb("ffb070"), 2.2)
    picture = glow(picture, sun, 230, rgb("fff0d0"), 2)
    disc(picture, sun, 46, rgb("fffaf0"))
    far, near, mist = rgb("a9a3b8"), rgb("131e33"), rgb("f3cdb2")
    for layer in range(6):
        depth = layer / 5
        rock = mix(far, near, depth**0.75)
        haze = mix(rock, mist, 0.55 * (1 - depth))
        heights = ridge(40 + layer, width, 150 - 8 * layer, 0.5 if layer < 5 else 0.58)
        top = height * (0.44 + 0.095 * layer)
        land(picture, top, heights, [(0, rock), (top / height, rock), (1, haze)])
    return picture


def lighthouse() -> Image.Image:
    """A lighthouse over the evening sea; upright."""
    width, height = 1080, 1440
    dusk = [(0, "141d45"), (0.3, "3f3f7d"), (0.52, "b4657f"), (0.64, "f3a26f"), (1, "f8c98f")]
    picture = sky((width, height), [(at, rgb(colour)) for at, colour in dusk])
    stars(picture, 5, 170, height * 0.45)
    horizon = height * 0.68
    picture = glow(picture, (260, horizon), 520, rgb("ff9a5c"), 1.8)
    sea = sky((width, height), [(0, rgb("d9865f")), (0.68, rgb("c9785f")), (1, rgb("182347"))])
    picture.paste(sea.crop((0, round(horizon), width, height)), (0, round(horizon)))
    chance, pen = random.Random(8), ImageDraw.Draw(picture, "RGBA")
    for _ in range(420):
        depth = chance.random() ** 1.6
        y = horizon + 4 + depth * (height - horizon)
        x = (
            chance.gauss(260, 90 + 420 * depth)
            if chance.random() < 0.7
            else chance.uniform(0, width)
        )
        length = 14 + 90 * depth
        light = mix(rgb("ffd9a0"), rgb("9d6a86"), depth)
        pen.line((x - length, y, x + length, y), (*light, round(120 * (1 - 0.7 * depth))), 2)
    _beam(picture)
    land(picture, height * 0.86, _cliff(width), [(0, rgb("3a3350")), (1, rgb("0c1022"))])
    _tower(picture)
    return glow(picture, (757, 497), 190, rgb("ffe2a0"), 2.4)


def _cliff(width: int) -> list[float]:
    rough = ridge(21, width, 26, 0.55)
    return [250 / (1 + math.exp((x - 560) / 55)) - 130 + rough[x] for x in range(width)]


def _beam(picture: Image.Image) -> None:
    rays = Image.new("L", picture.size)
    pen = ImageDraw.Draw(rays)
    pen.polygon([(757, 497), (-60, 300), (-60, 560)], fill=120)
    pen.polygon([(757, 497), (1200, 425), (1200, 520)], fill=80)
    warm = Image.new("RGB", picture.size, rgb("ffe9b8"))
    picture.paste(warm, (0, 0), rays.filter(ImageFilter.GaussianBlur(14)))


def _tower(picture: Image.Image) -> None:
    def side(y: float) -> float:
        return 44 + 34 * (y - 560) / 590

    def band(colour: str, top: float, bottom: float) -> None:
        def draw(pen: ImageDraw.ImageDraw, finer: int) -> None:
            corners = [
                (757 - side(top), top),
                (757 + side(top), top),
                (757 + side(bottom), bottom),
                (757 - side(bottom), bottom),
            ]
            pen.polygon([(x * finer, y * finer) for x, y in corners], fill=255)

        shade = Image.linear_gradient("L").rotate(90).resize((2 * 80, picture.height))
        lit = Image.new("RGB", picture.size, rgb(colour))
        dark = Image.new("RGB", picture.size, mix(rgb(colour), rgb("171a38"), 0.75))
        weights = Image.new("L", picture.size, 255)
        weights.paste(shade, (757 - 80, 0))
        shape(picture, draw, Image.composite(dark, lit, weights))

    for number in range(6):
        colour = "f4ece1" if number % 2 else "c4463d"
        band(colour, 560 + 98 * number, 560 + 98 * (number + 1))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((757 - 62, 548, 757 + 62, 562), fill=rgb("20233f"))
    pen.rectangle((757 - 32, 462, 757 + 32, 548), fill=rgb("fff1c4"))
    for x in (-32, -11, 10, 31):
        pen.line((757 + x, 462, 757 + x, 548), rgb("20233f"), 3)
    pen.pieslice((757 - 42, 418, 757 + 42, 504), 180, 360, fill=rgb("8e2f33"))
    pen.line((757, 388, 757, 420), rgb("20233f"), 4)
    for y in (640, 830, 1010):
        pen.rounded_rectangle((757 - 9, y, 757 + 9, y + 34), 8, fill=rgb("20233f"))


def balloon() -> Image.Image:
    """A hot-air balloon on nothing: the picture with an alpha channel."""
    side, centre, radius = 1000 * FINER, 500 * FINER, 330 * FINER
    picture = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(picture)
    top, waist, mouth = 60 * FINER, 470 * FINER, 735 * FINER
    colours = [rgb(c) for c in ("d64545", "f08a4b", "f7c95c", "4fa3a5", "2f5d8c", "6c4a7e")]
    gores = 24
    for gore in reversed(range(gores)):
        ends = []
        for turn in (gore, gore + 1):
            across = math.cos(math.pi * turn / gores)
            ends.append([(centre + across * w, y) for w, y in _profile(radius, top, waist, mouth)])
        light = 0.45 + 0.55 * max(0.0, math.cos(math.pi * (gore + 0.5) / gores - math.radians(125)))
        colour = mix((20, 16, 40), colours[gore // 2 % len(colours)], light)
        pen.polygon(ends[0] + ends[1][::-1], fill=(*colour, 255))
    basket = (centre - 62 * FINER, 835 * FINER, centre + 62 * FINER, 930 * FINER)
    for share in (-1, -0.4, 0.4, 1):
        start = (centre + share * 78 * FINER, mouth)
        pen.line((start, (centre + share * 58 * FINER, basket[1])), (92, 70, 52, 255), 3 * FINER)
    pen.rounded_rectangle(basket, 16 * FINER, fill=(139, 94, 60, 255))
    for row in range(1, 5):
        y = basket[1] + row * 19 * FINER
        pen.line((basket[0], y, basket[2], y), (96, 62, 40, 255), 2 * FINER)
    rim = (
        basket[0] - 5 * FINER,
        basket[1] - 7 * FINER,
        basket[2] + 5 * FINER,
        basket[1] + 9 * FINER,
    )
    pen.rounded_rectangle(rim, 8 * FINER, fill=(84, 54, 36, 255))
    return picture.resize((1000, 1000), Image.Resampling.BOX)


def _profile(radius: float, top: float, waist: float, mouth: float) -> list[tuple[float, float]]:
    """Half width and height along the envelope: a half ellipse, then a taper to the mouth."""
    steps = 60
    crown = [
        (radius * math.sin(angle), waist - (waist - top) * math.cos(angle))
        for angle in (math.pi / 2 * step / steps for step in range(steps + 1))
    ]
    taper = [
        (radius * (0.25 + 0.75 * math.cos(math.pi / 2 * t) ** 0.9), waist + (mouth - waist) * t)
        for t in (step / steps for step in range(1, steps + 1))
    ]
    return crown + taper


def moonrise() -> list[Image.Image]:
    """A moon that rises over a lake: the frames of an animation."""
    width, height, frames = 600, 400, 24
    shore, hills = 262, ridge(63, width, 44, 0.5)
    background = gradient((width, height), [(0, rgb("081129")), (1, rgb("2a4474"))])
    stars(background, 3, 150, 250)
    pictures = []
    for frame in range(frames):
        turn = frame / (frames - 1)
        moon = (330 + 130 * turn, 190 - 110 * math.sin(math.pi / 2 * turn))
        picture = glow(background, moon, 190, rgb("5f7fb8"), 2)
        disc(picture, moon, 27, rgb("fdf6df"))
        land(picture, shore - 36, hills, [(0, rgb("12203f")), (1, rgb("0a142c"))], gradient)
        mirrored = picture.crop((0, 2 * shore - height, width, shore)).transpose(
            Image.Transpose.FLIP_TOP_BOTTOM
        )
        water = Image.blend(mirrored, Image.new("RGB", mirrored.size, rgb("0d1c3c")), 0.45)
        for y in range(water.height):
            shift = round(math.sin(y * 0.55 + 2 * math.pi * turn * 3) * (1 + y * 0.035))
            row = water.crop((0, y, width, y + 1))
            picture.paste(ImageChops.offset(row, shift, 0), (0, shore + y))
        pictures.append(picture)
    return pictures


def aurora() -> Image.Image:
    """Northern lights over snowy hills."""
    width, height = SIZE
    night = sky(SIZE, [(0, rgb("050a1c")), (0.7, rgb("12304a")), (1, rgb("1c4a58"))])
    stars(night, 11, 700, height * 0.72)
    for seed, top, colour in ((31, 0.5, "1fe08a"), (32, 0.42, "38c9b0"), (33, 0.3, "9a5be0")):
        night = ImageChops.screen(night, _curtain(seed, height * top, rgb(colour)))
    snow = [
        ("5a7c93", 0.8, 71, 60, 0.48),
        ("24405a", 0.87, 72, 46, 0.45),
        ("0a1826", 0.95, 73, 26, 0.5),
    ]
    for colour, top, seed, rise, roughness in snow:
        tone = rgb(colour)
        land(
            night,
            height * top,
            ridge(seed, width, rise, roughness),
            [(0, tone), (top, mix(tone, rgb("9fe8c8"), 0.16)), (1, mix(tone, (4, 10, 20), 0.5))],
        )
    _firs(night)
    return night


def _curtain(seed: int, base: float, colour: Colour) -> Image.Image:
    width, _ = SIZE
    chance = random.Random(seed)
    phases = [chance.uniform(0, 2 * math.pi) for _ in range(5)]
    light = Image.new("L", SIZE)
    ray = Image.linear_gradient("L").point([round(255 * (v / 255) ** 1.7) for v in range(256)])
    for x in range(0, width, 3):
        at = x / width * 2 * math.pi
        foot = base + 95 * math.sin(at * 1.1 + phases[0]) + 36 * math.sin(at * 2.7 + phases[1])
        length = 330 + 90 * math.sin(at * 5 + phases[2]) + chance.uniform(-40, 40)
        strength = (
            0.42 + 0.3 * math.sin(at * 2.1 + phases[3]) + 0.14 * math.sin(at * 13 + phases[4])
        )
        strip = ray.resize((3, round(length))).point(lambda v, s=strength: round(v * max(0, s)))
        light.paste(strip, (x, round(foot - length)))
    soft = ImageChops.add(
        light.filter(ImageFilter.GaussianBlur(5)), light.filter(ImageFilter.GaussianBlur(40)), 1.5
    )
    return Image.merge("RGB", [soft.point(lambda v, c=c: v * c // 255) for c in colour])


def _firs(picture: Image.Image) -> None:
    chance = random.Random(77)
    firs = [
        (x + chance.uniform(-9, 9), chance.uniform(50, 150) * (0.55 + abs(x / SIZE[0] - 0.5)))
        for x in range(-20, SIZE[0] + 20, 26)
    ]

    def draw(pen: ImageDraw.ImageDraw, finer: int) -> None:
        for x, tall in firs:
            foot = SIZE[1] - 18 + 10 * math.sin(x)
            for tier in range(6):
                low = foot - tall * tier / 7
                half = tall * 0.17 * (1 - tier / 6.6)
                peak = low - tall * 0.3
                corners = [(x - half, low), (x + half, low), (x, peak)]
                pen.polygon([(a * finer, b * finer) for a, b in corners], fill=255)
        pen.rectangle((0, (SIZE[1] - 26) * finer, SIZE[0] * finer, SIZE[1] * finer), fill=255)

    shape(picture, draw, Image.new("RGB", picture.size, rgb("050c14")))


def dunes() -> Image.Image:
    """A desert in the evening, its crests lit from one side."""
    width, height = SIZE
    evening = [(0, "4f7fa8"), (0.35, "a9c4c9"), (0.5, "f6dfb4"), (1, "f7cf92")]
    picture = sky(SIZE, [(at, rgb(colour)) for at, colour in evening])
    sun = (width * 0.24, height * 0.36)
    picture = glow(picture, sun, 520, rgb("ffcf87"), 2.4)
    disc(picture, sun, 58, rgb("fff6dc"))
    chance = random.Random(17)
    for layer in range(5):
        top = height * (0.52 + 0.1 * layer)
        waves = [
            (chance.uniform(0.5, 1.3) * (1 + layer * 0.1), chance.uniform(0, 7)) for _ in range(3)
        ]
        crest = [
            sum((52 - 13 * n) * math.sin(x / width * 6 * f + p) for n, (f, p) in enumerate(waves))
            for x in range(width)
        ]
        depth = layer / 4
        lit, dark = (
            mix(rgb("f0c283"), rgb("d9803f"), depth),
            mix(rgb("c58d63"), rgb("5c2a22"), depth),
        )
        land(picture, top, crest, [(0, lit), (top / height, lit), (1, mix(lit, dark, 0.7))])
        slope = [
            y + 16 + (90 + 40 * depth) * (0.5 + 0.5 * math.sin(x / 170 + layer * 2))
            for x, y in enumerate(crest)
        ]
        lee = Image.new("L", SIZE)
        line = [(x, top + y) for x, y in enumerate(crest)]
        ImageDraw.Draw(lee).polygon(
            line + [(x, top + y) for x, y in enumerate(slope)][::-1], fill=190
        )
        shade = Image.linear_gradient("L").rotate(90).resize(SIZE).point(lambda v: v * 4 // 5)
        soft = ImageChops.multiply(lee.filter(ImageFilter.GaussianBlur(5)), shade)
        below = Image.new("L", SIZE)
        ImageDraw.Draw(below).polygon([*line, (width, height), (0, height)], fill=255)
        picture.paste(Image.new("RGB", SIZE, dark), (0, 0), ImageChops.multiply(soft, below))
    return picture


def exif(moment: str, position: tuple[float, float] | None, orientation: int = 1) -> Image.Exif:
    """What a camera writes: when, where, and how it was held."""
    data = Image.Exif()
    data[ExifTags.Base.Make] = "Image API"
    data[ExifTags.Base.Model] = "Demo"
    data[ExifTags.Base.Orientation] = orientation
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = moment
    if position:
        place = data.get_ifd(ExifTags.IFD.GPSInfo)
        latitude, longitude = position
        place[ExifTags.GPS.GPSLatitudeRef] = "N" if latitude >= 0 else "S"
        place[ExifTags.GPS.GPSLatitude] = _degrees(latitude)
        place[ExifTags.GPS.GPSLongitudeRef] = "E" if longitude >= 0 else "W"
        place[ExifTags.GPS.GPSLongitude] = _degrees(longitude)
    return data


def _degrees(value: float) -> tuple[float, float, float]:
    minutes, degrees = math.modf(abs(value))
    seconds, minutes = math.modf(minutes * 60)
    return degrees, minutes, round(seconds * 60, 2)


def save_alps(path: Path) -> None:
    """A photo with a position."""
    alps().save(path, "JPEG", quality=90, exif=exif("2024:08:17 06:12:40", (45.8326, 6.8652)))


def save_lighthouse(path: Path) -> None:
    """A photo from a camera that was held upright: its raster lies on its side."""
    lying = lighthouse().transpose(Image.Transpose.ROTATE_90)
    lying.save(path, "JPEG", quality=90, exif=exif("2024:09:02 20:48:11", (48.3303, -4.7714), 6))


def save_dunes(path: Path) -> None:
    """A progressive JPEG from south of the equator."""
    data = exif("2025:05:23 17:55:02", (-24.7275, 15.3386))
    dunes().save(path, "JPEG", quality=88, progressive=True, exif=data)


def save_moonrise(path: Path) -> None:
    """An animation."""
    first, *others = (frame.quantize(96, dither=Image.Dither.NONE) for frame in moonrise())
    first.save(path, "GIF", save_all=True, append_images=others, duration=110, loop=0)


PICTURES: dict[str, Callable[[Path], None]] = {
    "alps.jpg": save_alps,
    "aurora.webp": lambda path: aurora().save(path, "WEBP", quality=86),
    "balloon.png": lambda path: balloon().save(path, "PNG"),
    "dunes.jpg": save_dunes,
    "lighthouse.jpg": save_lighthouse,
    "moonrise.gif": save_moonrise,
}


def main(folder: Path) -> None:
    """Draw what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, save in PICTURES.items():
        if not (folder / name).exists():
            unfinished = folder / f".{name}"
            save(unfinished)
            unfinished.rename(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
