"""Three renditions of large pictures: CPU time, memory and fidelity beside libvips.

`python bench/renditions.py [--runs 5]` makes its own pictures, renders each in fresh processes, ours
and pyvips' cascade in turns, and prints medians and ratios of the same run. The fidelity is that of
`full` before encoding against libvips' full decode with lanczos3.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
for name in ("imageapi", "imageapi.imaging"):  # bare packages, as the decoder has them
    package = types.ModuleType(name)
    package.__path__ = [str(REPOSITORY / name.replace(".", "/"))]
    sys.modules[name] = package

GOALS = {
    # picture: CPU against pyvips, peak MiB
    "12 MP JPEG": (1.15, 60),
    "24 MP JPEG": (1.15, 85),
    "12 MP PNG": (2.1, None),
}
SIZES = {"12 MP": (4032, 3024), "24 MP": (6000, 4000)}
MIN_SSIM = 0.99


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


def ours(path: Path) -> None:
    from imageapi.imaging.limits import Limits  # noqa: PLC0415
    from imageapi.imaging.rendering import take_in  # noqa: PLC0415

    take_in(path, renditions(), Limits())


def pyvips_cascade(path: Path) -> None:
    import pyvips  # noqa: PLC0415

    full = pyvips.Image.thumbnail(str(path), 1920, height=1920, size="down").copy_memory()
    full.jpegsave_buffer(Q=85, keep="none")
    large = full.thumbnail_image(200, height=200, crop="centre").copy_memory()
    large.jpegsave_buffer(Q=85, keep="none")
    large.thumbnail_image(100, height=100, crop="centre").jpegsave_buffer(Q=85, keep="none")


def renditions() -> list[Any]:
    from imageapi.geometry import Rendition  # noqa: PLC0415

    return [
        Rendition("full", 1920, 1920, "fit"),
        Rendition("large", 200, 200, "fill"),
        Rendition("mini", 100, 100, "fill"),
    ]


WAYS = {"ours": ours, "pyvips": pyvips_cascade}


def one(way: str, path: Path) -> None:
    """Render once, in this process; print CPU milliseconds of the work and peak MiB of the process."""
    if way == "ours":
        import imageapi.imaging.rendering  # noqa: F401, PLC0415
    else:
        import pyvips  # noqa: F401, PLC0415
    start = time.process_time()
    WAYS[way](path)
    cpu = time.process_time() - start
    print(json.dumps({"ms": cpu * 1000, "mib": peak()}))


def peak() -> float:
    """The most memory that this process had since it was started, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024


def measure(way: str, path: Path) -> dict[str, float]:
    """`one` in a fresh process."""
    command = [sys.executable, __file__, "--one", way, str(path)]
    result = subprocess.run(command, capture_output=True, check=True)
    return json.loads(result.stdout)


def ssim(path: Path) -> float:
    """Structural similarity (luma, Gaussian window of sigma 1.5) of our `full` and libvips' own."""
    import pyvips  # noqa: PLC0415

    from imageapi.geometry import Edit  # noqa: PLC0415
    from imageapi.imaging.decode import decoding  # noqa: PLC0415
    from imageapi.imaging.limits import Limits  # noqa: PLC0415
    from imageapi.imaging.probing import inspect  # noqa: PLC0415
    from imageapi.imaging.rendering import compose  # noqa: PLC0415

    probed, header = inspect(path, Limits())
    with decoding(Limits()):
        full = compose(path, probed, header, Edit(), renditions()[:1])["full"]
    mine = pyvips.Image.new_from_memory(full.tobytes(), *full.size, 3, "uchar")
    mine = mine.copy(interpretation="srgb").colourspace("b-w").cast("float")
    whole = pyvips.Image.new_from_file(str(path))
    scale = full.width / whole.width
    other = whole.resize(scale, vscale=full.height / whole.height, kernel="lanczos3")
    other = other.colourspace("b-w").cast("float")

    def mean(image: Any) -> Any:
        return image.gaussblur(1.5, precision="float")

    a, b = mean(mine), mean(other)
    spread_a, spread_b = mean(mine * mine) - a * a, mean(other * other) - b * b
    together = mean(mine * other) - a * b
    small, smaller = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * a * b + small) * (2 * together + smaller)
    return (above / ((a * a + b * b + small) * (spread_a + spread_b + smaller))).avg()


def report(runs: int) -> bool:
    """Print the table; whether all goals are reached."""
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        for name, path in pictures(Path(folder)).items():
            samples: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(runs):
                for way in WAYS:
                    samples[way].append(measure(way, path))
            middle = {
                way: {key: statistics.median(run[key] for run in found) for key in ("ms", "mib")}
                for way, found in samples.items()
            }
            ratio = middle["ours"]["ms"] / middle["pyvips"]["ms"]
            alike = ssim(path)
            most, memory = GOALS[name]
            good = ratio <= most and (not memory or middle["ours"]["mib"] <= memory)
            good = good and alike >= MIN_SSIM
            reached = reached and good
            print(
                f"{name} ({path.stat().st_size / 1e6:.1f} MB): ours {middle['ours']['ms']:.0f} ms, "
                f"{middle['ours']['mib']:.0f} MiB; pyvips {middle['pyvips']['ms']:.0f} ms, "
                f"{middle['pyvips']['mib']:.0f} MiB; ratio {ratio:.2f} (goal {most}); "
                f"memory goal {memory or '-'}; SSIM of full {alike:.4f} (goal {MIN_SSIM})"
                f"{'' if good else '  MISSED'}"
            )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one[0], Path(given.one[1]))
    elif not report(given.runs):
        sys.exit(1)


if __name__ == "__main__":
    main()
