"""The floor: a bare Flask view that answers bytes made beforehand, with the contract's headers.

`BENCH_ANSWERS` names a JSON file: path → its headers and its body.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response


def create_app(answers: Mapping[str, Any]) -> Flask:
    app = Flask(__name__)
    for number, (path, answer) in enumerate(answers.items()):
        body, headers = answer["body"].encode(), [tuple(pair) for pair in answer["headers"]]
        # The same converters as ours: the last segment of an image is its id.
        rule = path if path.endswith("/images") else f"{path.rpartition('/')[0]}/<uuid:image_id>"
        app.add_url_rule(rule, f"answer{number}", _view(body, headers))
    return app


def _view(body: bytes, headers: list[tuple[str, str]]) -> Any:
    def view(**_arguments: object) -> Response:
        return Response(body, headers=headers)

    return view


if "BENCH_ANSWERS" in os.environ:
    app = create_app(json.loads(Path(os.environ["BENCH_ANSWERS"]).read_text()))
