"""Settings: read once, all faults at once, no secret ever shown."""

import dataclasses
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from imageapi import create_app, settings
from imageapi.settings import Settings, SettingsError

from .conftest import REPOSITORY, SECRET

OTHER = "another-key-of-the-tests-8c1f7a9d3e5b2064"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """`environment(NAME=value)`: nothing but a secret and these are set."""
    for name in os.environ:
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IMAGEAPI_SECRET_KEYS", SECRET)

    def change(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"IMAGEAPI_{name}", value)

    return change


def faults():
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    return refusal.value.faults


def test_a_secret_alone_will_do():
    loaded = settings.load()
    assert loaded == Settings(secret_keys=(SECRET,))
    assert loaded.database == f"sqlite:///{Path('instance').resolve()}/imageapi.sqlite3"


def test_what_is_set_is_read(environment):
    environment(
        SECRET_KEYS=f"{SECRET},{OTHER}",
        STORAGES="local=local,attic=shelf",
        TIMEZONE="Europe/Paris",
        PUBLIC_URL="https://img.example.org/",
        FULL="800x600",
        REQUIRE_IAT="true",
        MAX_UPLOAD_BYTES="1000",
        DATABASE_URL="postgresql+psycopg://u:p@db/images",
    )
    loaded = settings.load()
    assert loaded.secret_keys == (SECRET, OTHER)
    assert loaded.storages == {"local": "local", "attic": "shelf"}
    assert loaded.timezone.key == "Europe/Paris"
    assert loaded.public_url == "https://img.example.org"
    assert loaded.full == (800, 600)
    assert loaded.require_iat is True
    assert loaded.max_upload_bytes == 1000
    assert loaded.database == "postgresql+psycopg://u:p@db/images"


def test_an_empty_variable_is_an_absent_one(environment):
    environment(MAX_PIXELS="", TIMEZONE="", STORAGE="")
    assert settings.load() == Settings(secret_keys=(SECRET,))


def test_all_faults_are_told_at_once(environment):
    environment(SECRET_KEYS="short", MAX_PIXELS="many", TIMEZONE="Mars/Base", FULL="0x10")
    told = faults()
    names = ["SECRET_KEYS", "TIMEZONE", "MAX_PIXELS", "FULL"]
    assert [fault.split()[0] for fault in told] == [f"IMAGEAPI_{name}" for name in names]
    assert all(fault.endswith(".") and "\n" not in fault for fault in told)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "IMAGEAPI_SECRET_KEYS is required"),
        ("k7#Qz", "key 1 is shorter than 32 bytes"),
        ("x9K" + "-" * 28, "key 1 is shorter than 32 bytes"),
        ("é" * 15, "key 1 is shorter than 32 bytes"),
        (f"{SECRET},k7#Qz", "key 2 is shorter than 32 bytes"),
        (f"{SECRET},", "key 2 is shorter than 32 bytes"),
        (f"{SECRET}, {OTHER}", "key 2 has a space before or after it"),
        (f" {SECRET}", "key 1 has a space before or after it"),
        (f"{SECRET}\n", "key 1 has a space before or after it"),
        ("a" * 64, "key 1 is too easy to guess"),
        ("abcabcabc" * 8, "key 1 is too easy to guess"),
        ("0" * 63 + "1", "key 1 is too easy to guess"),
        ("your-256-bit-secret-your-256-bit-secret", "key 1 is a well-known secret"),
        ("Your-256-Bit-Secret-and-more-of-the-same", "key 1 is a well-known secret"),
        ("a-string-secret-at-least-256-bits-long", "key 1 is a well-known secret"),
        ("django-insecure-2k#9fj3m@x8s0q!vb5n7c1zt6", "key 1 is a well-known secret"),
        ("please-changeme-before-production-4711", "key 1 is a well-known secret"),
        ("0123456789abcdef0123456789abcdef", "key 1 is a well-known secret"),
    ],
)
def test_a_bad_secret_is_refused_and_never_shown(environment, secret, words):
    environment(SECRET_KEYS=secret)
    (fault,) = faults()
    assert words in fault
    for key in filter(None, secret.split(",")):
        assert key.strip() not in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGES", "local"),
        ("STORAGES", "Local=local"),
        ("STORAGES", "a-b=local"),
        ("STORAGES", "local=local, attic=shelf"),
        ("STORAGES", "local=local ,attic=shelf"),
        ("OPS_NETWORKS", "127.0.0.0/8, ::1"),
        ("PUBLIC_URL", "img.example.org"),
        ("PUBLIC_URL", "https://img.example.org/?a=1"),
        ("URL_WINDOW", "0"),
        ("TIMEZONE", "../etc/passwd"),
        ("TRUSTED_PROXIES", "-1"),
        ("MAX_UPLOAD_BYTES", "64MiB"),
        ("MAX_PIXELS", "0"),
        ("LARGE", "200"),
        ("TOKEN_MAX_AGE", "60"),
        ("REQUIRE_IAT", "perhaps"),
        ("LOG_LEVEL", "loud"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "http://["),
        ("CORS_ORIGINS", "http://[::1"),
        ("CORS_ORIGINS", "http://[dead:beef]:3000"),
        ("CORS_ORIGINS", "http://a[b]c"),
        ("CORS_ORIGINS", "http://::1"),
        ("CORS_ORIGINS", "http://h:99999"),
        ("CORS_ORIGINS", "https://app.example.org, https://b.example.org"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(environment, name, value):
    environment(**{name: value})
    (fault,) = faults()
    assert fault.startswith(f"IMAGEAPI_{name} ")


@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "h",
        "http://user:hunter2@h:1",
        "redis:hunter2@h",
        "redis://:Hunter2/Secret9@h/0",
        "redis://:hunter2[@h/0",
        "redis://:hunter2@h:99999/0",
        "redis://h1:6379;http://:hunter2@h2:6379",
    ],
)
def test_what_is_no_redis_is_refused_and_never_shown(environment, name, url):
    environment(**{name: url})
    (fault,) = faults()
    assert fault.startswith(f"IMAGEAPI_{name} ")
    assert "hunter2" not in fault.lower()


def test_a_broker_is_no_list_by_its_password(environment):
    """Celery takes what stands after a semicolon for the URL of another server."""
    environment(BROKER_URL="redis://:hunter2;9@h/0")
    (fault,) = faults()
    assert fault.startswith("IMAGEAPI_BROKER_URL ")
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "redis://h"),
        ("REDIS_URL", "redis://:semi;colon@h/0"),
        ("REDIS_URL", "rediss://user:p%2Fw@[::1]:6379/1?socket_timeout=1"),
        ("BROKER_URL", "redis://h1:6379/0;redis://h2:6379/0"),
        ("BROKER_URL", "redis+socket:///run/redis.sock"),
        ("BROKER_URL", "sentinel://h1:26379;sentinel://h2:26379"),
    ],
)
def test_what_is_a_redis_is_taken(environment, name, url):
    environment(**{name: url})
    assert getattr(settings.load(), name.lower()) == url


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///rel.db",
        "sqlite+pysqlite:///./rel.db",
        "sqlite:///file:/srv/imageapi/imageapi.sqlite?uri=true",
        "sqlite:////srv/imageapi/imageapi.sqlite?uri=true",
    ],
)
def test_sqlite_is_at_an_absolute_path(environment, url):
    environment(DATABASE_URL=url)
    wanted = "an absolute path such as sqlite:////srv/imageapi/imageapi.sqlite"
    assert faults() == (f"IMAGEAPI_DATABASE_URL must name {wanted}",)


def test_an_absolute_path_of_sqlite_is_read(environment):
    environment(DATABASE_URL="sqlite:////srv/imageapi/imageapi.sqlite")
    assert settings.load().database == "sqlite:////srv/imageapi/imageapi.sqlite"


NO_URLS = [
    "w0rd-s3cret",
    "postgresql+psycopg://user:p@ss:w0rd-s3cret@db.example/images",
    "postgresql+psycopg://user:w0rd-s3cret/images",
    "postgresql+psycopg://user:w0rd-s3cret@[::1/images",
    "postgresql+psycopg://user:w0rd-s3cret@db.example/images?port=many",
    "sqlite:////srv/w0rd-s3cret?timeout=long",
]


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_database_url_is_not_shown(environment, url):
    environment(DATABASE_URL=url)
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    assert refusal.value.faults == ("IMAGEAPI_DATABASE_URL is not an SQLAlchemy URL.",)
    assert "w0rd-s3cret" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("url", ["oracle17://u:w0rd-s3cret@h/d", "sqlite+pysqlcipher:////srv/x"])
def test_a_database_without_its_driver_is_told(environment, url):
    environment(DATABASE_URL=url)
    (fault,) = faults()
    assert fault == "IMAGEAPI_DATABASE_URL names a database whose driver is not installed."


def test_no_secret_is_in_a_repr():
    loaded = Settings(secret_keys=(SECRET,), database_url="postgresql://u:hunter2@db/images")
    assert SECRET not in repr(loaded)
    assert "hunter2" not in repr(loaded)


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("postgresql://u:hunter2@h/db", {"hunter2"}),
        ("postgresql://u:hunt%5Ber2@h/db", {"hunt%5Ber2", "hunt[er2"}),
        ("postgresql://u:hunt[er2@h/db", {"hunt[er2"}),
        ("postgresql://u:hunt/er2@h/db", {"hunt/er2"}),
        ("postgresql://u@[h/db", set()),
        ("postgresql://[::1]:5432/db", set()),
    ],
)
def test_the_password_in_a_url_is_a_secret(url, hidden):
    secrets = Settings(secret_keys=(SECRET,), database_url=url).secrets()
    assert {*secrets} == {SECRET, url, *hidden}


@pytest.mark.parametrize(
    ("password", "shown"),
    [("w0rd", "w0rd"), ("w[0rd", "w[0rd"), ("w#0?rd", "w#0?rd"), ("w%400rd", "w@0rd")],
)
def test_any_password_of_a_database_is_hidden(environment, password, shown):
    url = f"postgresql+psycopg://u:{password}@db/images?application_name=a@b"
    environment(DATABASE_URL=url)
    assert {url, password, shown} <= set(settings.load().secrets())


def test_every_setting_is_documented():
    for field in dataclasses.fields(Settings):
        assert field.metadata["doc"].endswith("."), field.name


def warnings_at_start(tmp_path, capsys):
    create_app(dataclasses.replace(settings.load(), instance=tmp_path))
    return capsys.readouterr().err.splitlines()


def test_an_unknown_name_is_warned_of_once(environment, tmp_path, capsys):
    environment(MAX_PIXEL="5", STORAGE_LOCAL_ROOTS="/x", COLOUR="a-secret-value")
    lines = warnings_at_start(tmp_path, capsys)
    assert len(lines) == 3
    assert "IMAGEAPI_COLOUR is not a setting." in lines[0]
    assert "IMAGEAPI_MAX_PIXEL is not a setting. Did you mean IMAGEAPI_MAX_PIXELS?" in lines[1]
    assert "Did you mean IMAGEAPI_STORAGE_LOCAL_ROOT?" in lines[2]
    assert "a-secret-value" not in "".join(lines)


def test_a_known_name_is_not_warned_of(environment, tmp_path, capsys):
    environment(MAX_PIXELS="5", STORAGE_LOCAL_ROOT=str(tmp_path / "elsewhere"))
    assert warnings_at_start(tmp_path, capsys) == []


@pytest.fixture(
    params=[("gunicorn", "wsgi:app", "--bind", "127.0.0.1:0"), ("flask", "albums", "list")],
    ids=["gunicorn", "flask"],
)
def refused(request, tmp_path):
    """`refused(NAME=value)`: what is said by a start that they stop; the name of each sentence."""

    def start(**values):
        done = subprocess.run(
            [sys.executable, "-m", *request.param],
            cwd=REPOSITORY,
            env={
                "PATH": os.defpath,
                "HOME": str(tmp_path),
                "IMAGEAPI_INSTANCE": str(tmp_path),
                "IMAGEAPI_SECRET_KEYS": SECRET,
                **{f"IMAGEAPI_{name}": value for name, value in values.items()},
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 4
        assert "Traceback" not in said
        assert "Booting worker" not in said
        return said, [line.split()[0] for line in said.splitlines() if line.startswith("IMAGEAPI_")]

    return start


def test_a_refused_configuration_stops_the_start(refused):
    secret = "kX7-not-long-enough"
    url = "postgresql+psycopg://user:p@ss:w0rd-s3cret@db.example/images"
    said, names = refused(SECRET_KEYS=secret, URL_WINDOW="never", DATABASE_URL=url)
    assert names == ["IMAGEAPI_SECRET_KEYS", "IMAGEAPI_DATABASE_URL", "IMAGEAPI_URL_WINDOW"]
    assert secret not in said
    assert "w0rd" not in said


def test_a_redis_that_is_none_stops_the_start_and_is_not_shown(refused):
    said, names = refused(
        RATE_LIMIT="600/minute",
        REDIS_URL="http://user:hunter2secret@h:1",
        BROKER_URL="redis://:Hunter2/Secret9@h/0",
    )
    assert names == ["IMAGEAPI_REDIS_URL", "IMAGEAPI_BROKER_URL"]
    assert "hunter2" not in said.lower()
