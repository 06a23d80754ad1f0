"""Every setting, declared once: its type, its default and a line of documentation.

`load()` reads the environment, collects all faults and raises them together. The README's table is
made from these declarations (`make docs`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import ipaddress
import itertools
import os
import re
import zlib
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import environs
import maxminddb
import sqlalchemy as sa
from marshmallow import ValidationError, validate

PREFIX = "IMAGEAPI_"
MIN_SECRET_BYTES = 32
_KNOWN_SECRETS = (
    "your-256-bit-secret",
    "your-super-secret-key",
    "a-string-secret-at-least-256-bits-long",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "django-insecure",
    "changeme",
    "change-me",
    "secret-key",
    "secretkey",
    "0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz",
    "correct horse battery staple",
    "this-is-a-secret",
    "correct-horse-battery",
    "supersecret",
    "super-secret",
    "replace_me",
    "replace-me",
    "password",
)

_ROWS = (
    "qwertyuiop asdfghjkl zxcvbnm 1234567890 abcdefghijklmnopqrstuvwxyz qazwsxedcrfvtgbyhnujmikolp"
)
_STEPS = {pair for row in (_ROWS, _ROWS[::-1]) for pair in itertools.pairwise(row)} - {(" ", " ")}

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """The configuration is refused; `faults` holds one sentence each, without any secret."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


def setting(
    doc: str,
    *,
    kind: str = "str",
    default: Any = None,
    shown: str | None = None,
    check: Callable[[Any], Any] | None = None,
    secret: bool = False,
    required: bool = False,
    **options: Any,
) -> Any:
    """Declare one setting as a dataclass field.

    Args:
        doc: the line of documentation in the README's table.
        kind: the environs parser: `str`, `int`, `bool`, `list`, …
        default: the value when the variable is absent (already parsed).
        shown: the default as the table shows it, where its repr would not do.
        check: turns the parsed value into the setting's value, or raises `ValidationError`.
        secret: never part of a repr.
        required: absent is a fault.
        options: further arguments of the parser.
    """
    metadata = {
        "doc": doc,
        "kind": kind,
        "default": default,
        "shown": shown,
        "check": check,
        "required": required,
        "options": options,
    }
    return dataclasses.field(default_factory=lambda: default, repr=not secret, metadata=metadata)


def _secrets(keys: list[str]) -> tuple[str, ...]:
    if not keys:
        raise ValidationError("must hold at least one key.")
    for number, key in enumerate(keys, start=1):
        _check_secret(key, f"key {number}")
    return tuple(keys)


def _check_secret(key: str, name: str) -> None:
    if len(key.encode()) < MIN_SECRET_BYTES:
        raise ValidationError(f"{name} is shorter than {MIN_SECRET_BYTES} bytes.")
    if key != key.strip():
        raise ValidationError(f"{name} has a space before or after it.")
    if any(known in key.lower() for known in _KNOWN_SECRETS):
        raise ValidationError(f"{name} is a well-known secret.")
    # Random text does not compress: 32 hex digits take 35 bytes, a word eight times over takes 20.
    if len(zlib.compress(key.encode(), 9)) < MIN_SECRET_BYTES:
        raise ValidationError(f"{name} is too easy to guess: it repeats itself.")
    if sum(step in _STEPS for step in itertools.pairwise(key.lower())) > len(key) / 2:
        raise ValidationError(
            f"{name} is too easy to guess: it walks along the keyboard or alphabet."
        )


def _timezone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError("is not a time zone name such as Europe/Paris.") from error


def _public_url(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", url):
        raise ValidationError(
            "must be an http(s) URL without query, such as https://img.example.org"
        )
    return url.rstrip("/")


def _database_url(url: str) -> str:
    try:
        made = sa.create_engine(url).url
    except (sa.exc.NoSuchModuleError, ImportError):
        raise ValidationError("names a database whose driver is not installed.") from None
    except (sa.exc.ArgumentError, ValueError):
        # The message would show a part of the URL, maybe of its password.
        raise ValidationError("is not an SQLAlchemy URL.") from None
    # Flask-SQLAlchemy looks for a relative path, and for a URI's, elsewhere than SQLAlchemy does: what
    # one writes the other would not read. A database in memory is another for each connection.
    absolute = Path(made.database or "").is_absolute() and "uri" not in made.query
    if made.get_backend_name() == "sqlite" and not absolute:
        raise ValidationError(
            "must name an absolute path such as sqlite:////srv/imageapi/imageapi.sqlite"
        )
    return url


def _redis(url: str) -> str:
    _check_server(url, "rediss?")
    if not importlib.util.find_spec("redis"):
        raise ValidationError("needs the extra `redis`, which is not installed.")
    return url


def _broker(url: str) -> str:
    for one in url.split(";"):  # Celery turns to the next when one does not answer
        _check_server(one, r"rediss?|redis\+socket|sentinel")
    if not all(map(importlib.util.find_spec, ("celery", "redis"))):
        raise ValidationError("needs the extra `celery`, which is not installed.")
    return url


def _check_server(url: str, schemes: str) -> None:
    if not re.match(f"({schemes})://", url):
        raise ValidationError("must be the URL of a Redis server, such as redis://host:6379/0.")
    if not _readable(url):
        raise ValidationError(
            "is no URL that can be read: in a password / is written as %2F, [ as %5B, ; as %3B."
        )


def _readable(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018 - what the libraries read, and would show with their complaint
    except ValueError:
        return False
    return True


def _origins(origins: list[str]) -> tuple[str, ...]:
    if not all(map(_is_origin, origins)):
        raise ValidationError("must be origins such as https://app.example.org, never *.")
    return tuple(origins)


def _is_origin(text: str) -> bool:
    form = r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?"
    return re.fullmatch(form, text) is not None and _readable(text)


def _rate(rate: str) -> str:
    # Slow to import, and seldom asked for.
    import limits  # noqa: PLC0415

    try:
        limits.parse_many(rate)
    except ValueError as error:
        raise ValidationError("must be a rate such as 600/minute.") from error
    return rate


def _networks(networks: list[str]) -> tuple[Network, ...]:
    try:
        return tuple(map(ipaddress.ip_network, networks))
    except ValueError as error:
        raise ValidationError("must be networks such as 127.0.0.0/8 or 10.1.2.3.") from error


def _geoip(path: Path) -> Path:
    try:
        maxminddb.open_database(path).close()
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        raise ValidationError("is not a MaxMind database that can be read.") from error
    return path


def _storages(pairs: list[str]) -> dict[str, str]:
    storages = {}
    for pair in pairs:
        name, separator, plugin = pair.partition("=")
        if not separator or not re.fullmatch("[a-z0-9]+", name) or not re.fullmatch(r"\S+", plugin):
            raise ValidationError("must be name=plugin pairs; a name is of a-z and 0-9.")
        storages[name] = plugin
    return storages


def _box(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not match:
        raise ValidationError("must be WIDTHxHEIGHT in pixels, each 1 to 9999.")
    return int(match[1]), int(match[2])


_IN_TREE = {name: name for name in ("local", "s3", "cloudinary")}
_POSITIVE = validate.Range(min=1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one process, read once at start."""

    secret_keys: tuple[str, ...] = setting(
        "Keys that sign and verify tokens, comma-separated, newest first; older ones still verify. "
        f"Each at least {MIN_SECRET_BYTES} bytes.",
        kind="list",
        default=(),
        check=_secrets,
        secret=True,
        required=True,
    )
    instance: Path = setting(
        "Folder for what a run leaves behind: the SQLite database, the local storage.",
        kind="path",
        default=Path("instance"),
    )
    database_url: str = setting(
        "Where the rows are, as an SQLAlchemy URL; of SQLite, with an absolute path.",
        default="",
        shown="SQLite in `IMAGEAPI_INSTANCE`",
        check=_database_url,
        secret=True,
    )
    database_connect_timeout: float = setting(
        "PostgreSQL: seconds that connecting to one address of the server may take; at least 2.",
        kind="float",
        default=2.0,
        validate=validate.Range(min=2),
    )
    database_statement_timeout: float = setting(
        "PostgreSQL: seconds that one statement of a request may take. Commands have no limit.",
        kind="float",
        default=2.4,
        validate=validate.Range(min=0.1),
    )
    database_lock_timeout: float = setting(
        "Seconds that a write waits for those of others; in a request to PostgreSQL no longer than six "
        "tenths of a statement's time.",
        kind="float",
        default=5.0,
        validate=validate.Range(min=0.1),
    )
    database_pool_size: int = setting(
        "PostgreSQL: how many transactions of one process may write at once, and how many statements "
        "may read: it has at most twice as many connections.",
        kind="int",
        default=10,
        validate=_POSITIVE,
    )
    database_pool_timeout: float = setting(
        "PostgreSQL: seconds that one more of these waits for its turn.",
        kind="float",
        default=1.0,
        validate=validate.Range(min=0.1),
    )
    storage: str = setting("The storage of new albums.", default="local")
    storages: Mapping[str, str] = setting(
        "The storages at hand, as `name=plugin`, comma-separated.",
        kind="list",
        default=_IN_TREE,
        shown="those in the tree, under their own names",
        check=_storages,
    )
    public_url: str = setting(
        "The URL that clients reach this service under; makes thumbnail URLs absolute.",
        default="",
        shown="none: URLs are relative",
        check=_public_url,
    )
    url_window: int = setting(
        "Seconds in which a rendition URL stays the same; it is valid for one to two of them.",
        kind="int",
        default=3600,
        validate=validate.Range(min=1, max=86400),
    )
    timezone: zoneinfo.ZoneInfo = setting(
        "The time zone that `created_at` is written in.",
        default=zoneinfo.ZoneInfo("UTC"),
        shown="UTC",
        check=_timezone,
    )
    geoip_database: Path | None = setting(
        "A MaxMind database file (.mmdb) of cities; without it `gps_ip` is always null.",
        kind="path",
        shown="none",
        check=_geoip,
    )
    trusted_proxies: int = setting(
        "How many proxies stand in front and append to `X-Forwarded-For`.",
        kind="int",
        default=0,
        validate=validate.Range(min=0, max=10),
    )
    max_upload_bytes: int = setting(
        "The largest picture taken in, in bytes.",
        kind="int",
        default=64 * 1024 * 1024,
        validate=_POSITIVE,
    )
    max_pixels: int = setting(
        "The largest picture taken in, in pixels (width × height × frames).",
        kind="int",
        default=100_000_000,
        validate=_POSITIVE,
    )
    album_max_bytes: int = setting(
        "How many bytes of originals one album may hold; shared ones count once.",
        kind="int",
        default=0,
        shown="no limit",
        validate=validate.Range(min=0),
    )
    album_max_images: int = setting(
        "How many images one album may hold.",
        kind="int",
        default=0,
        shown="no limit",
        validate=validate.Range(min=0),
    )
    full: tuple[int, int] = setting(
        "The box that the rendition `full` fits into.",
        default=(1920, 1920),
        shown="1920x1920",
        check=_box,
    )
    large: tuple[int, int] = setting(
        "The box that the rendition `large` fills.",
        default=(200, 200),
        shown="200x200",
        check=_box,
    )
    mini: tuple[int, int] = setting(
        "The box that the rendition `mini` fills.",
        default=(100, 100),
        shown="100x100",
        check=_box,
    )
    token_max_age: int = setting(
        "How far ahead a token's `exp` may lie, in seconds.",
        kind="int",
        default=30 * 24 * 3600,
        validate=validate.Range(min=4 * 3600),
    )
    require_iat: bool = setting(
        "Whether a token without `iat` is refused.", kind="bool", default=False
    )
    cors_origins: tuple[str, ...] = setting(
        "Origins whose pages may call the API, comma-separated.",
        kind="list",
        default=(),
        shown="none",
        check=_origins,
    )
    rate_limit: str = setting(
        "How many requests one token, and one address, may make, such as `600/minute`.",
        default="",
        shown="none",
        check=_rate,
    )
    redis_url: str = setting(
        "A Redis server that all processes count requests in.",
        default="",
        shown="none: each process counts its own",
        check=_redis,
        secret=True,
    )
    broker_url: str = setting(
        "The broker of Celery workers, a Redis server; they do what need not hold up a request.",
        default="",
        shown="none: each process does its own work",
        check=_broker,
        secret=True,
    )
    fsck_every: str = setting(
        "How often beat has all stored bytes checked, as `flask fsck` does: `day`, `week` or `never`.",
        default="week",
        validate=validate.OneOf(["day", "week", "never"]),
    )
    log_level: str = setting(
        "The least level that is logged.",
        default="INFO",
        validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"]),
    )
    access_log: bool = setting(
        "Whether each request that was answered leaves a line in the log; refused ones always do.",
        kind="bool",
        default=True,
    )
    audit_log: Path | None = setting(
        "A file that a line is appended to for every change, by requests and by commands.",
        kind="path",
        shown="none: a request's goes to the log, a command's to `audit.log` in `IMAGEAPI_INSTANCE`",
    )
    ops_networks: tuple[Network, ...] = setting(
        "Networks, comma-separated, that see `/metrics` and the reasons in `/readyz`.",
        kind="list",
        default=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        shown="loopback",
        check=_networks,
    )

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database_url or f"sqlite:///{self.instance.resolve() / 'imageapi.sqlite3'}"

    def secrets(self) -> list[str]:
        """Every text of it that nobody may see."""
        return hidden(self)


def variable(field: dataclasses.Field[Any], prefix: str = PREFIX) -> str:
    """The name of the environment variable that sets a field."""
    return prefix + field.name.upper()


def read(cls: type[T], prefix: str = PREFIX) -> tuple[T | None, list[str]]:
    """Read one dataclass of settings from the environment.

    Returns: the instance, or None beside all its faults, one sentence each.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = variable(field, prefix)
        if not os.environ.get(name):
            if field.metadata["required"]:
                faults.append(f"{name} is required: {field.metadata['doc']}")
            continue
        try:
            values[field.name] = _parse(field, name)
        except (environs.EnvError, ValidationError) as error:
            faults.append(_sentence(name, error))
    return (None if faults else cls(**values)), faults


def _parse(field: dataclasses.Field[Any], name: str) -> Any:
    value = getattr(environs.env, field.metadata["kind"])(name, **field.metadata["options"])
    check = field.metadata["check"]
    return check(value) if check else value


def _sentence(name: str, error: Exception) -> str:
    messages = error.messages if isinstance(error, ValidationError) else [str(error)]
    text = " ".join(str(message) for message in messages)
    said = text.removeprefix(f'Environment variable "{name}" invalid: ')
    return f"{name} is refused: {said}" if said[:1].isupper() else f"{name} {said}"


def hidden(options: Any) -> list[str]:
    """The secrets in a dataclass of settings; of a URL, its password too."""
    texts: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not field.repr and value:
            texts += value if isinstance(value, tuple) else [value]
    return texts + [password for text in texts for password in _passwords(text)]


def _passwords(url: str) -> Iterable[str]:
    # SQLAlchemy takes a / and a [ in a password; urlsplit ends it at the one and raises at the other.
    found = re.findall("://[^:/]*:([^@]+)@", url)
    with contextlib.suppress(ValueError):
        found.append(urlsplit(url).password or "")
    return {form for password in found if password for form in (password, unquote(password))}


def unknown(known: Iterable[str]) -> list[str]:
    """One sentence for each `IMAGEAPI_*` variable that no setting declares."""
    names = set(known)
    sentences = []
    for name in sorted(set(os.environ) - names):
        if name.startswith(PREFIX):
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            sentences.append(f"{name} is not a setting.{hint}")
    return sentences


def load() -> Settings:
    """Read the settings of the application.

    Raises:
        SettingsError: with every fault at once.
    """
    settings, faults = read(Settings)
    if settings is not None and settings.storage not in settings.storages:
        faults.append(f"{PREFIX}STORAGE names none of the storages at hand.")
    if settings is None or faults:
        raise SettingsError(faults)
    return settings
