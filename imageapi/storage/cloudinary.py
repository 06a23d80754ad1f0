"""Originals as private assets of a Cloudinary cloud, which renders every edit by signed URL itself.

Keys are public ids. Reading an image's metadata never calls Cloudinary: rendition URLs are signed
here, and what Cloudinary says of an original is kept in its row. The SDK is imported when it is
first needed, and told everything with each call.

The cloud (product environment) must be this service's own: `sweep` removes uploads that nobody
handed in, and knows them by their random names alone.

Source: Cloudinary's references of the Upload API, the Admin API, transformations and delivery URL
signatures; the direct upload's form is that of the recordings.
"""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from marshmallow import ValidationError, validate

from imageapi.errors import (
    FieldFault,
    InvalidFields,
    StorageCorrupt,
    StorageError,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.geometry import Box, Rendition, crop_box, effective_size, plan
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
)
from imageapi.storage.cloudinary_sdk import answers, sdk
from imageapi.storage.disk import disk_errors, opened_staged

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_PIECE = 256 * 1024
_CHUNK = 20_000_000
_HAND_IN_SECONDS = 7200
_LINK_SECONDS = 300
_QUALITY = 85
_DIGITS = "0123456789abcdef"
_KINDS = ("image", "video", "raw")
_MD5 = re.compile("[0-9a-f]{32}")
_SHA1 = re.compile("[0-9a-f]{40}")
_VERSION = re.compile("[0-9]{1,20}")
_RANDOM = re.compile(r"[a-z0-9]{20}(\.\w+)?")  # the public id of an upload that named none
_PUBLIC_ID = re.compile("[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*")
_EXTENT = re.compile(r"bytes (?:(?P<first>\d+)-\d+|\*)/(?P<total>\d+)")
_SYNONYMS = {"tif": "tiff", "jpeg": "jpg", "heif": "heic"}


def _base_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+/?", url):
        raise ValidationError(
            "must be an http(s) URL without path, such as https://img.example.org"
        )
    return url.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class CloudinaryOptions:
    """Settings of a Cloudinary storage."""

    cloud_name: str = setting("The cloud; it must be this service's own.", required=True)
    api_key: str = setting("The API key.", required=True)
    api_secret: str = setting("The API secret.", required=True, secret=True)
    upload_prefix: str = setting(
        "Where the API is.", default="https://api.cloudinary.com", check=_base_url
    )
    delivery_type: str = setting(
        "`private` or `authenticated`. With `private`, Cloudinary serves renditions unsigned too, "
        "unless strict transformations are on in the account.",
        default="private",
        validate=validate.OneOf(["private", "authenticated"]),
    )
    delivery_url: str = setting(
        "Where renditions are delivered from, if the account has a host of its own.",
        default="",
        shown="`https://res.cloudinary.com/<cloud name>`",
        check=_base_url,
    )
    token_key: str = setting(
        "The key of token-based access, if the account has it (with `authenticated`): without it "
        "rendition URLs never end.",
        default="",
        shown="none",
        secret=True,
        validate=validate.Regexp("([0-9a-fA-F]{2})+", error="must be hexadecimal."),
    )


class CloudinaryBackend(Backend, DirectUpload):
    """Assets of a cloud; their renditions are made and delivered by Cloudinary."""

    Options = CloudinaryOptions
    renders = True
    page = 500
    """How many assets are listed at a time; Cloudinary's own most."""
    whole = 100_000_000
    """Bytes that are sent in one request; Cloudinary wants more in chunks."""

    def __init__(self, options: CloudinaryOptions, context: Context) -> None:
        super().__init__(options, context)
        if options.token_key and options.delivery_type != "authenticated":
            raise StorageUnavailable(
                f"The storage {context.name!r} has a token key, which needs `authenticated`."
            )
        self._type: str = options.delivery_type
        self._account = {
            "cloud_name": options.cloud_name,
            "api_key": options.api_key,
            "api_secret": options.api_secret,
            "upload_prefix": options.upload_prefix,
            "signature_algorithm": "sha1",
            "signature_version": 2,
        }
        scheme, _, host = options.delivery_url.partition("://")
        self._delivery = {
            "cloud_name": options.cloud_name,
            "api_secret": options.api_secret,
            "signature_algorithm": "sha1",
            "type": options.delivery_type,
            "sign_url": True,
            "secure": scheme != "http",
            "private_cdn": bool(host),
            "secure_distribution": host or None,
            "cname": host or None,
        }

    @property
    def staging(self) -> Path:
        folder = self.context.instance / "storage" / self.context.name / "staging"
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def put(self, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        with disk_errors(), opened_staged(staged) as fd, open(fd, "rb", closefd=False) as file:
            options = {"public_id": key, "tags": list(tags), "overwrite": False}
            options |= {"unique_filename": False, "filename": "original"}
            if staged.length > self.whole:
                options["chunk_size"] = _CHUNK
                asset = self._ask(sdk().uploader.upload_large, file, **options)
            else:
                asset = self._ask(sdk().uploader.upload, ("original", file), **options)
        return self._verified(asset, key, staged, tags)

    def keep(self, key: str, data: bytes, content_type: str) -> None:  # noqa: ARG002 - never called
        raise StorageError("Cloudinary renders by itself and keeps no renditions of ours.")

    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._read("image", key, start, length)

    def stat(self, key: str) -> Stored:
        asset = self._find(key)
        return Stored(key, asset.bytes, asset.etag, asset.created)

    def delete(self, key: str) -> None:
        self._destroy("image", key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """By folders, as Cloudinary lists in an order of its own; one page does for a few keys."""
        found, cursor = self._page("image", prefix=prefix)
        if cursor and len(prefix) < 2:
            for below in (prefix + digit for digit in _DIGITS):
                if below >= after[: len(below)]:
                    yield from self.list(below, after)
            return
        while cursor:
            more, cursor = self._page("image", prefix=prefix, next_cursor=cursor)
            found = [*found, *more]
        for asset in sorted(found, key=lambda asset: asset.public_id):
            if KEY.fullmatch(asset.public_id) and asset.public_id > after:
                yield Stored(asset.public_id, asset.bytes, asset.etag, asset.created)

    def rendition_url(self, picture: Picture, rendition: Rendition, window: int) -> str:
        """Signed, with the revision in what is signed.

        A variable that nothing uses is Cloudinary's own way to say more in a transformation: it
        draws nothing, and the signature covers it. The version (`v1`) is not covered, and belongs
        to the stored bytes, which never change.
        """
        token: Any = False
        if self.options.token_key:
            ends = (window + 2) * self.context.url_window
            token = {"key": self.options.token_key, "expiration": ends}
        url, _ = sdk().utils.cloudinary_url(
            picture.key,
            raw_transformation=_transformation(picture, rendition),
            format=picture.extension,
            auth_token=token,
            **self._delivery,
        )
        return str(url)

    def check(self) -> None:
        try:
            with answers():
                answer = sdk().api.ping(timeout=self.context.timeout, **self._account)
                if answer["status"] != "ok":
                    raise StorageUnavailable
        except StorageError as error:
            words = [str(error), *getattr(error, "__notes__", ())]
            raise type(error)(" ".join(words)) from error

    def sweep(self, before: float) -> int:
        """Remove direct uploads that were never handed in."""
        removed = 0
        for kind in _KINDS:
            for asset in self._pages(kind):
                upload = _RANDOM.fullmatch(asset.public_id) and len(asset.tags) == 1
                if upload and asset.created < before:
                    self._destroy(kind, asset.public_id)
                    removed += 1
        return removed

    def upload_form(self, album: str, limit: int, now: float) -> UploadForm:  # noqa: ARG002
        """As recorded: it can pin neither size nor format, which reading the upload then does."""
        utils = sdk().utils
        params: dict[str, str | int] = {
            "timestamp": int(now),
            "transformation": "a_exif",
            "callback": f"{self.context.public_url or 'https://localhost'}/cloudinary_cors.html",
            "type": self._type,
            "tags": album,
        }
        params["signature"] = utils.api_sign_request(params, self.options.api_secret, "sha1", 2)
        params["api_key"] = self.options.api_key
        url = utils.cloudinary_api_url("upload", resource_type="auto", **self._account)
        return UploadForm(url=url, params=params)

    def claim(self, album: str, answer: Mapping[str, str], now: float) -> str:
        """Ask Cloudinary of an upload whose answer it signed: nothing else in an answer counts.

        Raises:
            StorageNotFound: handed in before, or swept.
        """
        public_id, version, signature = (
            str(answer.get(name, "")) for name in ("public_id", "version", "signature")
        )
        kind = answer.get("resource_type", "image")
        if not _PUBLIC_ID.fullmatch(public_id) or KEY.fullmatch(public_id):
            raise _refused("public_id", "must be that of a direct upload")
        if not self._signed(public_id, version, signature):
            raise _refused("signature", "must be that of Cloudinary's answer")
        if kind not in _KINDS:
            raise _refused("resource_type", "must be that of Cloudinary's answer")
        asset = self._find(public_id, kind)
        if asset.tags != [album]:
            raise _refused("public_id", "must be of an upload form of this album")
        if asset.version != version:
            raise _refused("version", "must be that of what is stored now")
        if now > asset.created + _HAND_IN_SECONDS:
            raise _refused("public_id", f"must be handed in within {_HAND_IN_SECONDS} s")
        if kind != "image":
            self._destroy(kind, public_id)
            raise _refused("resource_type", "must be image")
        return public_id

    def incoming(self, name: str) -> Iterator[bytes]:
        return self._read("image", name)

    def adopt(self, name: str, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        """Renamed, which happens once however many try; then looked at again."""
        try:
            asset = self._ask(sdk().uploader.rename, name, key, overwrite=False, invalidate=True)
        except StorageNotFound:
            asset = self._find(key)  # renamed by a try whose answer was lost
        return self._verified(asset, key, staged, tags)

    def release(self, key: str, name: str) -> None:
        with contextlib.suppress(StorageNotFound):  # a try whose answer was lost
            self._ask(sdk().uploader.rename, key, name, overwrite=False, invalidate=True)

    def discard(self, name: str) -> None:
        self._destroy("image", name)

    def _ask(self, call: Any, *args: object, **options: object) -> _Asset:
        """Call the SDK for one asset, with all that it would else look for elsewhere."""
        with answers():
            return _asset(
                call(
                    *args,
                    resource_type=options.pop("resource_type", "image"),
                    type=self._type,
                    timeout=self.context.timeout,
                    **self._account,
                    **options,
                )
            )

    def _find(self, public_id: str, kind: str = "image") -> _Asset:
        return self._ask(sdk().api.resource, public_id, resource_type=kind)

    def _destroy(self, kind: str, public_id: str) -> None:
        with answers(), contextlib.suppress(StorageNotFound):
            answer = sdk().uploader.destroy(
                public_id,
                type=self._type,
                resource_type=kind,
                invalidate=True,
                timeout=self.context.timeout,
                **self._account,
            )
            if answer["result"] not in ("ok", "not found"):
                raise StorageUnavailable

    def _page(self, kind: str, **options: str) -> tuple[Sequence[_Asset], str]:
        """Some assets, and the cursor of those that follow, "" at the end."""
        with answers():
            answer = sdk().api.resources(
                type=self._type,
                resource_type=kind,
                tags=True,
                max_results=self.page,
                timeout=self.context.timeout,
                **self._account,
                **options,
            )
            return [_asset(found) for found in answer["resources"]], answer.get("next_cursor") or ""

    def _pages(self, kind: str) -> Iterator[_Asset]:
        found, cursor = self._page(kind)
        yield from found
        while cursor:
            found, cursor = self._page(kind, next_cursor=cursor)
            yield from found

    def _verified(self, asset: _Asset, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        """The `infos` of an asset that is just what was staged; any other is removed."""
        etag = asset.etag or self._md5(key)
        facts = (asset.public_id, asset.kind, asset.bytes, etag, asset.format)
        if facts != (key, "image", staged.length, staged.md5, staged.format):
            if not asset.existing:  # else it is not of this call
                with contextlib.suppress(StorageError):
                    self.delete(key)
            raise StorageCorrupt("Cloudinary holds other bytes than it was sent.")
        return infos(staged, tags, asset.created, self._type)

    def _md5(self, key: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self.open(key):
            digest.update(piece)
        return digest.hexdigest()

    def _signed(self, public_id: str, version: str, signature: str) -> bool:
        params = {"public_id": public_id, "version": version}
        if not (_VERSION.fullmatch(version) and _SHA1.fullmatch(signature)):
            return False
        expected = sdk().utils.api_sign_request(params, self.options.api_secret, "sha1", 1)
        return hmac.compare_digest(expected, signature)

    def _read(
        self, kind: str, public_id: str, start: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        used = sdk()
        url = used.utils.private_download_url(
            public_id,
            "",
            type=self._type,
            resource_type=kind,
            expires_at=int(time.time()) + _LINK_SECONDS,
            **self._account,
        )
        last = "" if length is None else start + max(length, 1) - 1
        part = {"Range": f"bytes={start}-{last}"} if start or length is not None else {}
        with used.connector.opened(url, part, self.context.timeout) as answer:
            skip, total = _extent(answer, start)
            end = total if length is None else start + length
            if not start <= end <= total or (answer.status == 416 and start < end):
                raise StorageCorrupt
            yield from _pieces(answer, skip, end - start)


def _transformation(picture: Picture, rendition: Rendition) -> str:
    """The steps of a rendition: upright, cropped, turned, scaled down, in sRGB."""
    box = crop_box(picture.edit.crop, picture.size)
    whole = effective_size(picture.size, picture.edit)
    cut, size = plan(whole, rendition)
    steps = [f"$revision_{picture.revision}", "a_exif"]
    if box:
        steps.append(_crop(box))
    if picture.edit.rotation:
        steps.append(f"a_{picture.edit.rotation}")
    if rendition.mode == "fill" and cut.size != whole:
        steps.append(_crop(cut))
    if rendition.mode == "fill" and cut.size != size:
        steps.append(f"c_scale,h_{size.height},w_{size.width}")
    else:
        steps.append(f"c_limit,h_{rendition.height},w_{rendition.width}")
    steps.append("cs_srgb" if picture.extension == "png" else f"cs_srgb,q_{_QUALITY}")
    return "/".join(steps)


def _crop(box: Box) -> str:
    width, height = box.size
    return f"c_crop,g_north_west,h_{height},w_{width},x_{box.left},y_{box.top}"


class _Asset(NamedTuple):
    """What Cloudinary says of an asset; `created` in seconds since 1970."""

    public_id: str
    kind: str
    version: str
    format: str
    bytes: int
    etag: str
    created: float
    tags: Sequence[str]
    existing: bool


def _asset(answer: Mapping[str, Any]) -> _Asset:
    created = time.strptime(answer["created_at"], "%Y-%m-%dT%H:%M:%SZ")
    word, etag = str(answer.get("format", "")), str(answer.get("etag", ""))
    return _Asset(
        public_id=str(answer["public_id"]),
        kind=str(answer["resource_type"]),
        version=str(answer["version"]),
        format=_SYNONYMS.get(word, word),
        bytes=int(answer["bytes"]),
        etag=etag if _MD5.fullmatch(etag) else "",
        created=calendar.timegm(created),
        tags=[str(tag) for tag in answer.get("tags", ())],
        existing=bool(answer.get("existing")),
    )


def _refused(field: str, message: str) -> InvalidFields:
    return InvalidFields(errors=[FieldFault(field, message)])


def _extent(answer: BaseHTTPResponse, start: int) -> tuple[int, int]:
    """How many bytes come before `start`, and how many the whole file has."""
    if answer.status == 200:
        return start, int(answer.headers["Content-Length"])
    match = _EXTENT.fullmatch(answer.headers.get("Content-Range", ""))
    if not match or (match["first"] and int(match["first"]) != start):
        raise StorageCorrupt("Cloudinary answered another part than it was asked for.")
    return 0, int(match["total"])


def _pieces(answer: BaseHTTPResponse, skip: int, wanted: int) -> Iterator[bytes]:
    for piece in answer.stream(_PIECE, decode_content=False) if wanted else ():
        part = piece[skip:][:wanted]
        skip = max(0, skip - len(piece))
        wanted -= len(part)
        yield part
        if not wanted:
            return
    if wanted:
        raise StorageCorrupt
