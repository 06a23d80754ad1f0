"""Storages on servers of their own: S3 on SeaweedFS, Cloudinary on the stand-in."""

from __future__ import annotations

import itertools

import boto3
import pytest

from tests.api.conftest import Api
from tests.servers.cloudinary import cloudinary
from tests.servers.seaweedfs import seaweedfs

BUCKET = "photos-of-upkeep"
PREFIXES = itertools.count()


@pytest.fixture(scope="session")
def s3_server():
    with seaweedfs() as server:
        api = boto3.client(
            "s3",
            endpoint_url=server.url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        api.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="session")
def cloudinary_server():
    with cloudinary() as server:
        yield server


def s3_settings(server):
    """The environment of a storage `s3` in a place of its own."""
    return {
        "IMAGEAPI_STORAGE_S3_BUCKET": BUCKET,
        "IMAGEAPI_STORAGE_S3_ENDPOINT_URL": server.url,
        "IMAGEAPI_STORAGE_S3_ACCESS_KEY_ID": server.access_key,
        "IMAGEAPI_STORAGE_S3_SECRET_ACCESS_KEY": server.secret_key,
        "IMAGEAPI_STORAGE_S3_ADDRESSING_STYLE": "path",
        "IMAGEAPI_STORAGE_S3_PREFIX": f"{next(PREFIXES)}/",
    }


def cloudinary_settings(server):
    """The environment of a storage `cloudinary`, with nothing in it."""
    server.clear()
    return {
        "IMAGEAPI_STORAGE_CLOUDINARY_CLOUD_NAME": server.cloud_name,
        "IMAGEAPI_STORAGE_CLOUDINARY_API_KEY": server.api_key,
        "IMAGEAPI_STORAGE_CLOUDINARY_API_SECRET": server.api_secret,
        "IMAGEAPI_STORAGE_CLOUDINARY_UPLOAD_PREFIX": server.url,
        "IMAGEAPI_STORAGE_CLOUDINARY_DELIVERY_URL": server.url,
    }


@pytest.fixture
def s3(monkeypatch, s3_server):
    for name, value in s3_settings(s3_server).items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def on_cloudinary(monkeypatch, cloudinary_server):
    for name, value in cloudinary_settings(cloudinary_server).items():
        monkeypatch.setenv(name, value)
    return cloudinary_server


@pytest.fixture
def anna(client, token, album):
    """Requests of the owner of the album `holidays`."""
    album("holidays", owner="anna")
    return Api(client, token(user_id="anna"))


@pytest.fixture
def flask(app):
    """`flask(*arguments)`: run a command in this process."""

    def run(*arguments):
        return app.test_cli_runner().invoke(args=list(map(str, arguments)))

    return run
