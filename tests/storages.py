"""Storages on servers of their own: S3 on SeaweedFS, Cloudinary on the stand-in; for any test."""

from __future__ import annotations

import itertools
import re

import boto3
import pytest
import requests

from tests.servers.cloudinary import cloudinary
from tests.servers.seaweedfs import seaweedfs

STORAGES = ["local", "s3", "cloudinary"]
BUCKET = "photos-of-the-tests"
_PREFIXES = itertools.count()

everywhere = pytest.mark.parametrize("storage", STORAGES, indirect=True)
"""The test runs on each of the three storages."""


def s3_api(server):
    """The SDK's client of an S3 server."""
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )


def s3_settings(server, url=None):
    """The environment of a storage `s3` in a place of its own, behind `url` if need be."""
    return {
        "IMAGEAPI_STORAGE_S3_BUCKET": BUCKET,
        "IMAGEAPI_STORAGE_S3_ENDPOINT_URL": url or server.url,
        "IMAGEAPI_STORAGE_S3_ACCESS_KEY_ID": server.access_key,
        "IMAGEAPI_STORAGE_S3_SECRET_ACCESS_KEY": server.secret_key,
        "IMAGEAPI_STORAGE_S3_ADDRESSING_STYLE": "path",
        "IMAGEAPI_STORAGE_S3_PREFIX": f"{next(_PREFIXES)}/",
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


def post_directly(form, data):
    """Post a file to a storage as the page that got `form` would; what it may hand in then."""
    files = {"file": ("a b.jpg", data)}
    answer = requests.post(form["url"], data=form["params"], files=files, timeout=10)
    assert answer.status_code in (200, 201), answer.text
    found = re.search("<Key>(.*)</Key>", answer.text)
    return {"key": found[1]} if found else answer.json()


@pytest.fixture(scope="session")
def s3_server():
    with seaweedfs() as server:
        s3_api(server).create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="session")
def cloudinary_server():
    with cloudinary() as server:
        yield server


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
def storage(request):
    """The storage of new albums: `local`, or what `everywhere` says."""
    name = getattr(request, "param", "local")
    if name != "local":
        request.getfixturevalue({"s3": "s3", "cloudinary": "on_cloudinary"}[name])
    return name
