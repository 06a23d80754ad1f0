"""Originals and renditions as objects of an S3 bucket: AWS, Ceph, SeaweedFS, MinIO and the like.

Keys are object names below the prefix. Every upload carries its MD5 and SHA-256, which the server
checks, and is looked at once more before it counts. The SDK is imported when it is first needed;
each process makes a client of its own.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import quote

from marshmallow import validate

from imageapi.errors import (
    FieldFault,
    InvalidFields,
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.geometry import Rendition
from imageapi.settings import setting
from imageapi.storage.backend import (
    KEY,
    Backend,
    Context,
    DirectUpload,
    Infos,
    Picture,
    Staged,
    Stored,
    UploadForm,
    infos,
    rendition_key,
)
from imageapi.storage.disk import disk_errors, opened_staged
from imageapi.storage.signing import Tickets

if TYPE_CHECKING:
    from botocore.credentials import Credentials  # type: ignore[import-untyped]

_PIECE = 256 * 1024
_PART = 16 * 1024 * 1024
_MD5 = re.compile("[0-9a-f]{32}")
_FORM_SECONDS = 3600
_PROBE = "imageapi-check"
_NO_BUCKET = "The bucket does not exist."
_MEANING: Mapping[str, type[StorageError]] = {
    "NoSuchKey": StorageNotFound,
    "AuthorizationHeaderMalformed": StorageDenied,
    "PermanentRedirect": StorageDenied,
    "InvalidBucketName": StorageDenied,
    "BadDigest": StorageCorrupt,
    "InvalidDigest": StorageCorrupt,
    "IncompleteBody": StorageCorrupt,
    "InvalidPart": StorageCorrupt,
    "PreconditionFailed": StorageCorrupt,  # a copy of what is no longer there
    "InvalidRange": StorageCorrupt,
    "XAmzContentSHA256Mismatch": StorageCorrupt,
    "XAmzContentChecksumMismatch": StorageCorrupt,
    "QuotaExceeded": StorageFull,
    "InsufficientStorage": StorageFull,
    "XMinioStorageFull": StorageFull,
    "RequestTimeout": StorageUnavailable,
    "SlowDown": StorageUnavailable,
}
_STATUSES: Mapping[int, type[StorageError]] = {
    401: StorageDenied,
    403: StorageDenied,
    404: StorageNotFound,
    408: StorageUnavailable,
    416: StorageCorrupt,
    429: StorageUnavailable,
    507: StorageFull,
}


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """Settings of an S3 storage."""

    bucket: str = setting("The bucket; it must exist.", required=True)
    endpoint_url: str = setting("Where the S3 service is.", default="", shown="AWS")
    region: str = setting("The region of the bucket.", default="us-east-1")
    access_key_id: str = setting(
        "The access key.", default="", shown="the AWS SDK's own chain", secret=True
    )
    secret_access_key: str = setting(
        "The secret of the access key.", default="", shown="the AWS SDK's own chain", secret=True
    )
    prefix: str = setting("What every object name begins with, such as `photos/`.", default="")
    addressing_style: str = setting(
        "`path`, `virtual` (the bucket in the host name) or `auto`.",
        default="auto",
        validate=validate.OneOf(["auto", "path", "virtual"]),
    )
    encryption: str = setting(
        "Server-side encryption to ask for: `AES256` or `aws:kms`.",
        default="",
        shown="what the bucket does",
        validate=validate.OneOf(["AES256", "aws:kms"]),
    )


class _Client(NamedTuple):
    """One process's own: the SDK's client, its credentials, and what every object URL begins with."""

    pid: int
    api: Any
    credentials: Credentials
    base: str

    def __repr__(self) -> str:
        """Not the credentials."""
        return f"_Client(pid={self.pid})"


class S3Backend(Backend, DirectUpload):
    """Objects of a bucket; their URLs are presigned."""

    Options = S3Options
    page = 1000
    """How many keys are listed at a time."""

    def __init__(self, options: S3Options, context: Context) -> None:
        super().__init__(options, context)
        if bool(options.access_key_id) != bool(options.secret_access_key):
            raise StorageUnavailable(
                f"The storage {context.name!r} has one of access key and secret, and needs both."
            )
        self._tickets = Tickets(context.secret_keys)
        self._made: _Client | None = None

    @property
    def staging(self) -> Path:
        folder = self.context.instance / "storage" / self.context.name / "staging"
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def put(self, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        try:
            with disk_errors(), opened_staged(staged) as fd, open(fd, "rb", closefd=False) as file:
                send = self._put_whole if staged.length <= _PART else self._put_parts
                etag = send(key, staged, file)
            created = self._verify(key, staged, etag)
        except StorageCorrupt:
            with contextlib.suppress(StorageError):
                self.delete(key)
            raise
        return infos(staged, tags, created)

    def keep(self, key: str, data: bytes, content_type: str) -> None:
        with _s3_errors():
            self._client.api.put_object(
                **self._object(key),
                **self._encryption,
                Body=data,
                ContentMD5=_base64(hashlib.md5(data, usedforsecurity=False).digest()),
                ContentType=content_type,
                CacheControl=f"private, max-age={self.context.url_window}",
            )

    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        size = self.stat(key).bytes if length == 0 or start else None
        if length == 0 or start == size:
            if size is not None and start + (length or 0) > size:
                raise StorageCorrupt
            return
        last = "" if length is None else start + length - 1
        part = {"Range": f"bytes={start}-{last}"} if start or length is not None else {}
        with _s3_errors():
            answer = self._client.api.get_object(**self._object(key), **part)
            with contextlib.closing(answer["Body"]) as body:
                begins = answer.get("ContentRange", "bytes 0-").startswith(f"bytes {start}-")
                if not begins or length not in (None, answer["ContentLength"]):
                    raise StorageCorrupt
                yield from body.iter_chunks(_PIECE)

    def stat(self, key: str) -> Stored:
        head = self._head(key)
        etag = "" if _keyed(head) else _md5(head["ETag"])
        return Stored(key, head["ContentLength"], etag, head["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        with contextlib.suppress(StorageNotFound), _s3_errors():
            self._client.api.delete_object(**self._object(key))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        start = {"StartAfter": self.options.prefix + after} if after else {}
        with _s3_errors():
            for found in self._pages("list_objects_v2", "Contents", prefix, **start):
                key = found["Key"].removeprefix(self.options.prefix)
                if KEY.fullmatch(key):
                    # its etag may be no MD5, which only a look at the object itself tells
                    yield Stored(key, found["Size"], "", found["LastModified"].timestamp())

    def rendition_url(self, picture: Picture, rendition: Rendition, window: int) -> str:
        key = rendition_key(picture.image_id, picture.revision, rendition.name, picture.extension)
        client = self._client
        url = client.base + quote(self.options.prefix + key, safe="/~")
        begin, seconds = window * self.context.url_window, 2 * self.context.url_window
        with _s3_errors():
            return _presigned(url, client.credentials, self.options.region, begin, seconds)

    def check(self) -> None:
        with _s3_errors():  # a PUT's answer says more than that of a HEAD
            self._client.api.put_object(**self._object(_PROBE), **self._encryption, Body=b"check")
            self._client.api.delete_object(**self._object(_PROBE))

    def sweep(self, before: float) -> int:
        """Abort multipart uploads never completed, remove direct uploads never handed in."""
        removed, target = 0, {"Bucket": self.options.bucket}
        with _s3_errors():
            for upload in self._pages("list_multipart_uploads", "Uploads", ""):
                if upload["Initiated"].timestamp() < before:
                    target |= {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                    self._client.api.abort_multipart_upload(**target)
                    removed += 1
            for found in self._pages("list_objects_v2", "Contents", "incoming/"):
                if found["LastModified"].timestamp() < before:
                    self._client.api.delete_object(Bucket=self.options.bucket, Key=found["Key"])
                    removed += 1
        return removed

    def upload_form(self, album: str, limit: int, now: float) -> UploadForm:
        name = self._tickets.new(album, int(now) + 2 * _FORM_SECONDS)
        pinned = {"Content-Type": "application/octet-stream", "success_action_status": "201"}
        with _s3_errors():
            form = self._client.api.generate_presigned_post(
                **self._object(name),
                Fields=pinned | self._form_encryption,
                Conditions=[
                    *({name: value} for name, value in (pinned | self._form_encryption).items()),
                    ["content-length-range", 1, limit],
                ],
                ExpiresIn=_FORM_SECONDS,
            )
        return UploadForm(url=form["url"], params=form["fields"])

    def claim(self, album: str, answer: Mapping[str, str], now: float) -> str:
        name = answer.get("key", "").removeprefix(self.options.prefix)
        if not self._tickets.valid(name, album, now):
            fault = FieldFault("key", "must be that of an upload form of this album")
            raise InvalidFields(errors=[fault])
        return name

    def incoming(self, name: str) -> Iterator[bytes]:
        return self.open(name)

    def adopt(self, name: str, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        """Copied inside the store if it still has the staged MD5, then looked at once more."""
        try:
            with _s3_errors():
                self._client.api.copy_object(
                    **self._object(key),
                    **self._encryption,
                    CopySource=self._object(name),
                    CopySourceIfMatch=staged.md5,
                    MetadataDirective="REPLACE",
                    ContentType=_content_type(staged),
                )
            created = self._verify(key, staged, staged.md5)
        except StorageCorrupt:
            with contextlib.suppress(StorageError):
                self.delete(key)
            raise
        return infos(staged, tags, created)

    def release(self, key: str, name: str) -> None:  # noqa: ARG002 - it was copied
        self.delete(key)

    def discard(self, name: str) -> None:
        self.delete(name)

    @property
    def _client(self) -> _Client:
        # Without a lock, which a fork could leave held: two threads may each make one, no more.
        made = self._made
        if made is None or made.pid != os.getpid():
            with _s3_errors():
                made = self._made = _connect(self.options, self.context)
        return made

    @property
    def _encryption(self) -> dict[str, str]:
        encryption = self.options.encryption
        return {"ServerSideEncryption": encryption} if encryption else {}

    @property
    def _form_encryption(self) -> dict[str, str]:
        encryption = self.options.encryption
        return {"x-amz-server-side-encryption": encryption} if encryption else {}

    def _pages(self, call: str, part: str, prefix: str, **start: str) -> Iterator[dict[str, Any]]:
        pages = self._client.api.get_paginator(call).paginate(
            Bucket=self.options.bucket,
            Prefix=self.options.prefix + prefix,
            PaginationConfig={"PageSize": self.page},
            **start,
        )
        for page in pages:
            yield from page.get(part, ())

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.options.bucket, "Key": self.options.prefix + key}

    def _put_whole(self, key: str, staged: Staged, file: BinaryIO) -> str:
        with _s3_errors():
            self._client.api.put_object(
                **self._object(key),
                **self._encryption,
                Body=file,
                ContentLength=staged.length,
                ContentMD5=_base64(bytes.fromhex(staged.md5)),
                ChecksumSHA256=_base64(bytes.fromhex(staged.sha256)),
                ContentType=_content_type(staged),
            )
        return staged.md5

    def _put_parts(self, key: str, staged: Staged, file: BinaryIO) -> str:
        with _s3_errors():
            api, target = self._client.api, self._object(key)
            target["UploadId"] = api.create_multipart_upload(
                **target, **self._encryption, ContentType=_content_type(staged)
            )["UploadId"]
            try:
                parts, etag = self._send_parts(target, staged, file)
                api.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
            except BaseException:
                with contextlib.suppress(StorageError), _s3_errors():
                    api.abort_multipart_upload(**target)  # where it fails, `sweep` does it later
                raise
        return etag

    def _send_parts(
        self, target: dict[str, str], staged: Staged, file: BinaryIO
    ) -> tuple[Sequence[dict[str, Any]], str]:
        """Send the parts; the server checks each of them, we that they are the staged bytes.

        Returns: the parts, and the etag that the whole must have (MD5 of the MD5s, their number).
        """
        parts: list[dict[str, Any]] = []
        whole, md5s = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        while data := file.read(_PART):
            whole.update(data)
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            md5s.update(md5)
            number = len(parts) + 1
            answer = self._client.api.upload_part(
                **target, PartNumber=number, Body=data, ContentMD5=_base64(md5)
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        if whole.hexdigest() != staged.sha256:
            raise StorageCorrupt("The staged file is not what was staged.")
        return parts, f"{md5s.hexdigest()}-{len(parts)}"

    def _verify(self, key: str, staged: Staged, etag: str) -> float:
        """Ask the server what it holds now.

        Returns: when it was stored.
        """
        try:
            head = self._head(key)
        except StorageNotFound as error:
            raise StorageCorrupt("The storage lost what it took.") from error
        same = _keyed(head) or head["ETag"].strip('"') == etag
        if head["ContentLength"] != staged.length or not same:
            raise StorageCorrupt("The storage holds other bytes than it was sent.")
        return float(head["LastModified"].timestamp())

    def _head(self, key: str) -> dict[str, Any]:
        try:
            with _s3_errors():
                head: dict[str, Any] = self._client.api.head_object(**self._object(key))
                return head
        except StorageNotFound:
            self._head_bucket()  # no body tells which of the two is missing
            raise

    def _head_bucket(self) -> None:
        try:
            with _s3_errors():
                self._client.api.head_bucket(Bucket=self.options.bucket)
        except StorageNotFound as error:
            raise StorageDenied(_NO_BUCKET) from error


def _connect(options: S3Options, context: Context) -> _Client:
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 - 13 MiB
    from botocore.config import Config  # type: ignore[import-untyped]  # noqa: PLC0415

    session = boto3.session.Session(
        aws_access_key_id=options.access_key_id or None,
        aws_secret_access_key=options.secret_access_key or None,
    )
    config = Config(
        region_name=options.region,
        signature_version="s3v4",
        connect_timeout=context.timeout,
        read_timeout=context.timeout,
        retries={"total_max_attempts": 1},  # `Storage` retries
        max_pool_connections=32,
        # Content-MD5 and SHA-256 are sent where they are needed; trailers are not taken by all
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": options.addressing_style},
    )
    credentials = session.get_credentials()
    if credentials is None:
        raise StorageDenied("There are no credentials, neither in the settings nor of the SDK's.")
    api = session.client("s3", endpoint_url=options.endpoint_url or None, config=config)
    presigned = api.generate_presigned_url("get_object", {"Bucket": options.bucket, "Key": "x"})
    return _Client(os.getpid(), api, credentials, presigned.partition("?")[0].removesuffix("x"))


@functools.cache
def _window_auth() -> Any:
    """The SDK's signer of query strings, with a clock that the caller sets."""
    from botocore.auth import S3SigV4QueryAuth  # type: ignore[import-untyped]  # noqa: PLC0415

    class WindowAuth(S3SigV4QueryAuth):  # type: ignore[misc]
        timestamp = ""

        def _modify_request_before_signing(self, request: Any) -> None:
            request.context["timestamp"] = self.timestamp
            super()._modify_request_before_signing(request)

    return WindowAuth


def _presigned(url: str, credentials: Credentials, region: str, begin: int, seconds: int) -> str:
    """A GET of `url`, signed at `begin` (seconds since 1970), valid for so many seconds."""
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # noqa: PLC0415

    auth = _window_auth()(credentials.get_frozen_credentials(), "s3", region, seconds)
    auth.timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(begin))
    request = AWSRequest("GET", url)
    auth.add_auth(request)
    return str(request.url)


@contextlib.contextmanager
def _s3_errors() -> Iterator[None]:
    """Turn what the SDK raises in the block into the `StorageError` that it means."""
    from botocore import exceptions, parsers  # type: ignore[import-untyped]  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except exceptions.ClientError as error:
        raise _meaning(error.response) from error
    except exceptions.IncompleteReadError as error:
        raise StorageCorrupt from error
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
    ) as error:
        raise StorageDenied from error
    except (exceptions.BotoCoreError, parsers.ResponseParserError, HTTPError, OSError) as error:
        raise StorageUnavailable from error


def _meaning(response: Mapping[str, Any]) -> StorageError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    code = str(response.get("Error", {}).get("Code", status))
    if code == "NoSuchBucket":
        return StorageDenied(_NO_BUCKET)
    default = StorageUnavailable if status >= 500 else StorageError
    kind = _MEANING.get(code) or _STATUSES.get(status, default)
    return kind(f"{kind.detail} (S3: {code})")


def _keyed(head: Mapping[str, Any]) -> bool:
    """Whether the etag is no MD5, because the object is encrypted with a key of the vendor's KMS."""
    return str(head.get("ServerSideEncryption", "")).startswith("aws:kms")


def _md5(etag: str) -> str:
    etag = etag.strip('"')
    return etag if _MD5.fullmatch(etag) else ""


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _content_type(staged: Staged) -> str:
    if staged.format == "jpg":
        return "image/jpeg"
    return f"image/{staged.format}" if staged.format else "application/octet-stream"
