"""What gunicorn, `flask` and the workers start from."""

from __future__ import annotations

import sys

from imageapi import create_app
from imageapi.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    sys.stderr.write(f"{error}\n")
    # 4 is gunicorn's own code for an application that can not be loaded: its master stops at once
    # instead of starting worker after worker.
    raise SystemExit(4) from None
