"""Wait until the server answers, then say what there is to try.

Usage: DEMO_TOKEN=… HOST=… PORT=… python demo/welcome.py PID

PID is the server's; when it ends, this does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

WELCOME = """
The Image API answers at {url}

  image   {image}
  token   {token}

  curl -i -H 'Authorization: Token token="{token}"' {url}/api/v1/images/{image}

Its thumbnails, for a browser:

{thumbnails}

Ctrl-C ends it."""


def alive(pid: int) -> bool:
    """Whether the process is there."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def images(url: str, token: str) -> list[dict[str, Any]]:
    """The images of the demo album, the newest first."""
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{url}/api/v1/albums/demo/images", headers={"Authorization": f'Token token="{token}"'}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)
    return found


def main(pid: int) -> None:
    """Wait, then print."""
    token = os.environ["DEMO_TOKEN"]
    url = f"http://{os.environ['HOST']}:{os.environ['PORT']}"
    while alive(pid):
        try:
            album = images(url, token)
        except urllib.error.HTTPError as error:
            sys.exit(f"The server answers {error.code} for the demo album.")
        except OSError:
            time.sleep(0.1)
            continue
        shown = next((image for image in album if image["gps"]), album[0])
        links = shown["thumbnails"].values()
        text = WELCOME.format(
            url=url,
            image=shown["public_id"],
            token=token,
            thumbnails="\n".join(f"  {urllib.parse.urljoin(url, link)}" for link in links),
        )
        print(text, flush=True)
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
