"""One rendering in a process of its own: `python bench/one_rendition.py WAY FILE`.

Prints the CPU milliseconds of the work, without the imports, and the peak MiB of the process. Imports no
more than the way needs, as the decoder's process does.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def ours(path: Path) -> None:
    """The three renditions; the placeholder, which no peer makes, is left out."""
    from imageapi.geometry import Edit  # noqa: PLC0415
    from imageapi.imaging import probing, rendering  # noqa: PLC0415
    from imageapi.imaging.decode import decoding  # noqa: PLC0415
    from imageapi.imaging.limits import Limits  # noqa: PLC0415

    with path.open("rb") as stream, decoding(Limits()):
        probed, header = probing.inspect(stream, Limits())
        for picture in rendering.compose(stream, probed, header, Edit(), renditions()).values():
            rendering._encoded(picture, "jpg")  # noqa: SLF001


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


def limit(path: Path) -> None:
    """What no renderer can do without: decode at the fraction that is enough, encode once."""
    from PIL import Image  # noqa: PLC0415

    with Image.open(path) as picture:
        picture.draft("RGB", (1920, 1080))
        picture.load()
        picture.save(io.BytesIO(), "JPEG", quality=85)


WAYS = {"ours": ours, "pyvips": pyvips_cascade, "limit": limit}
NEEDS = {"ours": "imageapi.imaging.rendering", "pyvips": "pyvips", "limit": "PIL.Image"}


def one(way: str, path: Path) -> None:
    """Render once, in this process; print CPU milliseconds of the work and peak MiB of the process."""
    for name in ("imageapi", "imageapi.imaging"):  # bare packages, as the decoder has them
        package = types.ModuleType(name)
        package.__path__ = [str(REPOSITORY / name.replace(".", "/"))]
        sys.modules[name] = package
    importlib.import_module(NEEDS[way])
    start = time.process_time()
    WAYS[way](path)
    cpu = time.process_time() - start
    print(json.dumps({"ms": cpu * 1000, "mib": peak()}))


def peak() -> float:
    """The most memory that this process had since it was started, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024


if __name__ == "__main__":
    one(sys.argv[1], Path(sys.argv[2]))
