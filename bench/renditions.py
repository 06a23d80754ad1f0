"""Three renditions of large pictures: CPU time, memory and fidelity beside libvips.

The pictures are made here, with the entropy of photos. Each is rendered in fresh processes, by us and by
pyvips' cascade in turns; the figures are those of the least disturbed run. The fidelity is that of `full`
before encoding, against libvips' full decode with lanczos3; then that of the JPEG for some qualities.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.one_rendition import WAYS, renditions
from bench.table import Row

PROCESS = Path(__file__).with_name("one_rendition.py")

SIZES = {"12 MP": (4032, 3024), "24 MP": (6000, 4000)}
MOST_CPU = {"JPEG": 1.15, "PNG": 2.1}
"""CPU time, against pyvips."""
MOST_MEMORY = {"12 MP JPEG": 60, "24 MP JPEG": 85}
"""MiB."""
MOST_OF_LIMIT = 3.1
"""CPU time, against libjpeg-turbo's scaled decode and one encode."""
MOST_UNLIKE = 0.01
"""1 - SSIM."""
MOST_ISOLATION = 10
"""Milliseconds a picture."""


def make(width: int, height: int) -> Any:
    """A picture with the entropy of a photo: gradients, shapes with edges, texture, sensor noise."""
    from PIL import Image, ImageChops, ImageDraw, ImageFilter  # noqa: PLC0415

    chance = random.Random(7)  # noqa: S311
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    picture = Image.merge("RGB", (across, down, ImageChops.invert(across)))
    draw = ImageDraw.Draw(picture)
    for _ in range(400):
        x, y = chance.randrange(width), chance.randrange(height)
        r = chance.randrange(20, height // 8)
        colour = tuple(chance.randrange(256) for _ in range(3))
        if chance.random() < 0.5:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        else:
            draw.line((x, y, x + r * 3, y + r), fill=colour, width=chance.randrange(1, 12))
    picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    texture = Image.effect_noise((width // 4, height // 4), 40).resize((width, height))
    noise = Image.effect_noise((width, height), 5)
    for layer in (texture, noise):
        offset = layer.point(lambda value: max(0, min(255, value)))
        picture = ImageChops.add(picture, Image.merge("RGB", (offset,) * 3), 1, -128)
    return picture


def pictures(folder: Path) -> dict[str, Path]:
    """The files to render."""
    files = {}
    for size, box in SIZES.items():
        picture = make(*box)
        files[f"{size} JPEG"] = folder / f"{box[0]}.jpg"
        picture.save(files[f"{size} JPEG"], quality=88, subsampling="4:2:0")
        if size == "12 MP":
            files["12 MP PNG"] = folder / f"{box[0]}.png"
            picture.save(files["12 MP PNG"], compress_level=6)
    return files


def measure(path: Path, ways: list[str], runs: int) -> dict[str, dict[str, float]]:
    """The least of each way's runs, in fresh processes and in turns: load only ever adds."""
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            command = [sys.executable, str(PROCESS), way, str(path)]
            samples[way].append(json.loads(subprocess.check_output(command)))
    return {
        way: {key: min(run[key] for run in found) for key in ("ms", "mib")}
        for way, found in samples.items()
    }


def whole(path: Path) -> Any:
    """Our `full` before it is encoded."""
    from imageapi.geometry import Edit  # noqa: PLC0415
    from imageapi.imaging.decode import decoding  # noqa: PLC0415
    from imageapi.imaging.limits import Limits  # noqa: PLC0415
    from imageapi.imaging.probing import inspect  # noqa: PLC0415
    from imageapi.imaging.rendering import compose  # noqa: PLC0415

    with path.open("rb") as stream, decoding(Limits()):
        probed, header = inspect(stream, Limits())
        return compose(stream, probed, header, Edit(), renditions()[:1])["full"]


def ssim(picture: Any, path: Path) -> float:
    """Structural similarity (luma, Gaussian window of sigma 1.5) with libvips' rendering of a file."""
    import pyvips  # noqa: PLC0415

    mine = pyvips.Image.new_from_memory(picture.tobytes(), *picture.size, 3, "uchar")
    mine = mine.copy(interpretation="srgb").colourspace("b-w").cast("float")
    other = pyvips.Image.new_from_file(str(path))
    across, down = picture.width / other.width, picture.height / other.height
    other = other.resize(across, vscale=down, kernel="lanczos3").colourspace("b-w").cast("float")

    def mean(image: Any) -> Any:
        return image.gaussblur(1.5, precision="float")

    a, b = mean(mine), mean(other)
    spread_a, spread_b = mean(mine * mine) - a * a, mean(other * other) - b * b
    together = mean(mine * other) - a * b
    small, smaller = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * a * b + small) * (2 * together + smaller)
    return (above / ((a * a + b * b + small) * (spread_a + spread_b + smaller))).avg()


def isolation(path: Path, runs: int) -> float:
    """Milliseconds that a small picture takes longer through the helper than in this process."""
    from imageapi import imaging  # noqa: PLC0415
    from imageapi.geometry import Edit  # noqa: PLC0415
    from imageapi.imaging.probing import inspect  # noqa: PLC0415
    from imageapi.imaging.rendering import draw  # noqa: PLC0415

    limits = imaging.Limits()

    def in_process() -> None:
        with path.open("rb") as stream:
            probed, header = inspect(stream, limits)
            draw(stream, probed, header, Edit(), renditions(), limits)

    def through_helper() -> None:
        imaging.take_in(path, renditions(), limits)

    apart, here = [], []
    for _ in range(runs):
        for way, found in ((through_helper, apart), (in_process, here)):
            start = time.perf_counter()
            way()
            found.append((time.perf_counter() - start) * 1000)
    return min(apart) - min(here)


def rows(*, short: bool) -> Iterator[Row]:
    """The table's rows."""
    from PIL import Image  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        for name, path in pictures(Path(folder)).items():
            if short and name != "12 MP JPEG":
                continue
            jpeg = name.endswith("JPEG")
            found = measure(path, [*WAYS] if jpeg else ["ours", "pyvips"], 3 if short else 7)
            ms = {way: figures["ms"] for way, figures in found.items()}
            what = f"{name}: three renditions, "
            most = MOST_CPU[name.split()[-1]]
            yield Row(f"{what}CPU ms", ms["ours"], ms["pyvips"], "pyvips' cascade", most)
            if jpeg:
                yield Row(f"{what}CPU ms", ms["ours"], ms["limit"], "decode, encode", MOST_OF_LIMIT)
            memory, beside = found["ours"]["mib"], found["pyvips"]["mib"]
            goal = MOST_MEMORY.get(name)
            yield Row(f"{what}peak MiB", memory, beside, "pyvips' cascade", goal, absolute=True)
            full = whole(path)
            unlike = 1 - ssim(full, path)
            yield Row(
                f"{name}: full, not encoded, 1 - SSIM", unlike, None, "", MOST_UNLIKE, absolute=True
            )
            for quality in () if short or not jpeg else (75, 80, 85, 90):
                file = io.BytesIO()
                full.save(file, "JPEG", quality=quality, subsampling="4:2:0")
                alike = ssim(Image.open(file).convert("RGB"), path)
                said = f"SSIM {alike:.4f}"
                yield Row(
                    f"{name}: full at quality {quality}, kB", len(file.getvalue()) / 1e3, None, said
                )
        small = Path(folder) / "small.jpg"
        make(320, 240).save(small, quality=85)
        cost = isolation(small, 5 if short else 60)
        yield Row("isolation, wall ms a picture", cost, None, "", MOST_ISOLATION, absolute=True)
