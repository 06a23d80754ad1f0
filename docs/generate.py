"""Make the parts of the documentation that come from the code; `make docs` writes them.

The README's settings table from the settings' declarations, `docs/cli.md` from the commands,
`docs/errors.md` from the errors, `docs/policy.md` from the routes and the policy table,
`docs/openapi.json` from all that the API's answers are made of.
"""

from __future__ import annotations

import configparser
import dataclasses
import importlib.metadata
import inspect
import json
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import flask

from imageapi import cli, create_app, settings
from imageapi.auth.policy import ACCESS_HEADERS, POLICY, Access
from imageapi.blueprints.openapi import document
from imageapi.cli import explain
from imageapi.cli.command import Command
from imageapi.errors import ImageAPIError
from imageapi.storage.backend import Backend
from imageapi.storage.storages import GROUP

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Made by `make docs`; do not edit. -->"
BEGIN, END = "<!-- settings: made by `make docs` -->", "<!-- /settings -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines = [cells[0], ["---"] * len(head), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def setting_rows(cls: type[Any], prefix: str = settings.PREFIX) -> Iterator[Sequence[str]]:
    """A row for each setting that a dataclass declares."""
    for field in dataclasses.fields(cls):
        shown = field.metadata["shown"]
        default = "required" if field.metadata["required"] else shown or _value(field)
        yield f"`{settings.variable(field, prefix)}`", default, field.metadata["doc"]


def _value(field: dataclasses.Field[Any]) -> str:
    value = field.metadata["default"]
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in (None, "") else f"`{value}`"


def settings_table() -> str:
    """Every setting of the application and of the storages in the tree."""
    head = ("variable", "default", "meaning")
    parts = [table(head, setting_rows(settings.Settings))]
    for name, plugin in _plugins():
        rows = setting_rows(plugin.Options, f"{settings.PREFIX}STORAGE_<NAME>_")
        parts.append(f"A storage of the kind `{name}`:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _plugins() -> Iterator[tuple[str, type[Backend]]]:
    """The storages in the tree; read from `setup.cfg`, as what is installed may be older."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    for line in config["options.entry_points"][GROUP].strip().splitlines():
        name, _, value = line.partition(" = ")
        yield name, importlib.metadata.EntryPoint(name, value, GROUP).load()


def readme() -> str:
    """The README with its settings table made anew."""
    text = (ROOT / "README.md").read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{settings_table()}\n\n{END}{tail}"


def cli_page() -> str:
    """Every command with its options and exit codes."""
    parts = [
        "# The command line",
        NOTE,
        (
            "Run in the folder of `wsgi.py`, with the settings in the environment. Results go to standard "
            "output, all else to standard error. `flask db upgrade` brings the database to the present "
            "schema; the other commands of `flask db` are those of Flask-Migrate."
        ),
    ]
    for group in sorted(cli.GROUPS, key=lambda group: group.name or ""):
        for name, command in sorted(group.commands.items()):
            parts += _command(" ".join(filter(None, ("flask", group.name, name))), command)
    return "\n\n".join(parts) + "\n"


def _command(path: str, command: click.Command) -> list[str]:
    if not isinstance(command, Command):
        raise TypeError(f"{path} is not made by Commands.command")
    context = click.Context(command, info_name=path)
    usage = command.get_usage(context).removeprefix("Usage: ")
    options = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    rows = [(f"`{names}`", text) for names, text in options]
    codes = [(str(code), text) for code, text in sorted(command.exits.items())]
    return [
        f"## {path}",
        f"```\n{' '.join(usage.split())}\n```",
        inspect.cleandoc(command.help or ""),
        table(("option", "meaning"), rows),
        f"Example: `{command.example}`",
        table(("exit code", "meaning"), codes),
    ]


def errors_page() -> str:
    """Every error that an answer may carry."""
    rows = [(f"`{e.code}`", str(e.status), e.title, _meaning(e)) for e in _errors(ImageAPIError)]
    return (
        "\n\n".join(
            [
                "# Errors",
                NOTE,
                (
                    "An answer that is not a 2xx, 3xx or the blank picture is `application/problem+json` "
                    "(RFC 9457). `code` is stable: branch on it, not on the text in `detail`. `instance` is "
                    "`urn:uuid:` and the request's id, which is also in `X-Request-Id` and in the logs. "
                    "`errors` lists the fields at fault, each as `field` and `message`."
                ),
                table(("code", "status", "title", "meaning"), sorted(rows, key=lambda row: row[1])),
            ]
        )
        + "\n"
    )


def _errors(cls: type[ImageAPIError]) -> Iterator[type[ImageAPIError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == "imageapi.errors":
            yield from _errors(child)


def _meaning(error: type[ImageAPIError]) -> str:
    if error is ImageAPIError:
        return error.detail
    text = " ".join(inspect.cleandoc(error.__doc__ or "").split())
    return re.sub(r" \(design §[^)]*\)", "", text)


def policy_page(app: flask.Flask) -> str:
    """Every route with what opens it."""
    rules = sorted(
        app.url_map.iter_rules(), key=lambda rule: (rule.rule, sorted(rule.methods or ()))
    )
    rows = [
        (
            f"`{' '.join(sorted((rule.methods or set()) - {'OPTIONS'}))}`",
            f"`{explain.path(rule)}`",
            _opened_by(rule.endpoint),
            ", ".join(f"`{name}`" for name in ACCESS_HEADERS.get(rule.endpoint, ())) or "–",
        )
        for rule in rules
    ]
    return (
        "\n\n".join(
            [
                "# Who may do what",
                NOTE,
                (
                    "Any one of the abilities named opens a route, in the album that it is about. An owner "
                    "whose token has no entry for the album has every ability but `image_share`. What a "
                    "token does not reach is answered as what does not exist: 404."
                ),
                table(("methods", "route", "opened by", "tells what is allowed next"), rows),
            ]
        )
        + "\n"
    )


def _opened_by(endpoint: str) -> str:
    rule = POLICY[endpoint]
    if isinstance(rule, Access):
        return rule.value
    opened = " or ".join(f"`{ability}`" for ability in sorted(rule))
    return f"{opened}, for the album's owner alone" if endpoint in explain.OWNERS_ALONE else opened


def openapi(app: flask.Flask) -> str:
    """The document that `/openapi.json` answers, on many lines."""
    return json.dumps(document.make(app), ensure_ascii=False, indent=2) + "\n"


def pages(app: flask.Flask) -> dict[Path, str]:
    """Every file that is made, and what it should say."""
    return {
        ROOT / "README.md": readme(),
        ROOT / "docs" / "cli.md": cli_page(),
        ROOT / "docs" / "errors.md": errors_page(),
        ROOT / "docs" / "policy.md": policy_page(app),
        ROOT / "docs" / "openapi.json": openapi(app),
    }


def main() -> None:
    """Write them."""
    with tempfile.TemporaryDirectory() as folder:
        key = secrets.token_urlsafe(48)
        app = create_app(settings.Settings(secret_keys=(key,), instance=Path(folder)))
        for path, text in pages(app).items():
            path.write_text(text)


if __name__ == "__main__":
    main()
