"""What gunicorn, `flask` and Celery's workers start from."""

from __future__ import annotations

import sys
from typing import Any

from imageapi import create_app
from imageapi.settings import SettingsError

try:
    app: Any = create_app()
except SettingsError as error:
    sys.stderr.write(f"{error}\n")
    # 4 is gunicorn's own code for an application that can not be loaded: its master stops at once
    # instead of starting worker after worker.
    raise SystemExit(4) from None

if app.extensions["library"].settings.broker_url:
    with app.app_context():
        celery = app.extensions["background"].celery

if "celery.bin.celery" in sys.modules:
    # `celery -A wsgi` takes what is named `app` before it looks for what is named `celery`.
    try:
        app = celery
    except NameError:
        sys.stderr.write("IMAGEAPI_BROKER_URL is required: there is no work for Celery without.\n")
        raise SystemExit(4) from None
