"""The implementation that comes to mind first: Flask-SQLAlchemy's ORM and PyJWT, nothing kept ready.

It decodes the token, reads the image and its album, checks the ability, signs the X-token, and sends
the same body and headers as ours. `BENCH_DATABASE`, `BENCH_SECRET`: its database and its key.
"""

from __future__ import annotations

import datetime
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from flask import Flask, Response, abort, current_app, g, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Album(db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(unique=True)
    images: Mapped[list[Image]] = relationship(back_populates="album")


class Image(db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[str] = mapped_column(primary_key=True)
    album_id: Mapped[int] = mapped_column(db.ForeignKey(Album.id), index=True)
    album: Mapped[Album] = relationship(back_populates="images")
    created_at: Mapped[datetime.datetime] = mapped_column(index=True)
    infos: Mapped[dict[str, Any]] = mapped_column(db.JSON)
    exifs: Mapped[dict[str, Any]] = mapped_column(db.JSON)
    gps_ip: Mapped[list[float] | None] = mapped_column(db.JSON)
    gps_exifs: Mapped[list[float] | None] = mapped_column(db.JSON)
    gps_html: Mapped[list[float] | None] = mapped_column(db.JSON)
    width: Mapped[int]
    height: Mapped[int]
    rotation: Mapped[int]
    crop_x: Mapped[float]
    crop_y: Mapped[float]
    crop_w: Mapped[float]
    crop_h: Mapped[float]
    thumbnails: Mapped[dict[str, str]] = mapped_column(db.JSON)

    def to_dict(self) -> dict[str, Any]:
        created = self.created_at.replace(tzinfo=datetime.UTC)
        return {
            "public_id": self.id,
            "infos": self.infos,
            "exifs": self.exifs,
            "gps": self.gps_exifs or self.gps_html or self.gps_ip,
            "gps_ip": self.gps_ip,
            "gps_exifs": self.gps_exifs,
            "gps_html": self.gps_html,
            "created_at": created.isoformat(timespec="milliseconds"),
            "width": self.width,
            "height": self.height,
            "rotation": self.rotation,
            "crop_x": self.crop_x,
            "crop_y": self.crop_y,
            "crop_w": self.crop_w,
            "crop_h": self.crop_h,
            "album_id": self.album.public_id,
            "thumbnails": self.thumbnails,
        }


def create_app(database: str, secret: str) -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = database
    app.config["SECRET"] = secret
    db.init_app(app)
    app.before_request(authenticate)
    app.after_request(add_headers)
    app.add_url_rule("/api/v1/images/<uuid:image_id>", view_func=show)
    app.add_url_rule("/api/v1/albums/<album_id>/images", view_func=list_images)
    return app


def fill(app: Flask, images: Iterable[Mapping[str, Any]]) -> None:
    """Keep images as our own list answers them."""
    with app.app_context():
        db.create_all()
        albums: dict[str, Album] = {}
        for shown in images:
            values = dict(shown)
            values["id"] = values.pop("public_id")
            values.pop("gps")
            name = values.pop("album_id")
            album = albums.setdefault(name, Album(public_id=name))
            created = datetime.datetime.fromisoformat(values.pop("created_at"))
            created = created.astimezone(datetime.UTC).replace(tzinfo=None)
            db.session.add(Image(album=album, created_at=created, **values))
        db.session.commit()
        db.engine.dispose()


def authenticate() -> None:
    g.started = time.perf_counter()
    header = request.headers.get("Authorization", "")
    token = header.removeprefix('Token token="').removesuffix('"')
    try:
        g.claims = jwt.decode(
            token, current_app.config["SECRET"], algorithms=["HS256"], options={"require": ["exp"]}
        )
    except jwt.InvalidTokenError:
        abort(401)


def access(album: str) -> dict[str, bool]:
    return g.claims["abilities"].get(album, {}).get("Access", {})


def show(image_id: uuid.UUID) -> Response:
    image = db.session.get(Image, str(image_id))
    if image is None or not access(image.album.public_id):
        abort(404)
    if not access(image.album.public_id).get("image_list"):
        abort(403)
    response = answer(image.to_dict())
    for name in ("crop", "rotate"):
        allowed = access(image.album.public_id).get(f"image_{name}")
        response.headers[f"X-access-{name}"] = "true" if allowed else "false"
    return response


def list_images(album_id: str) -> Response:
    if not access(album_id).get("image_list"):
        abort(404)
    album = Album.query.filter_by(public_id=album_id).one()
    images = (
        Image.query.filter_by(album_id=album.id).order_by(Image.created_at.desc()).limit(100).all()
    )
    return answer([image.to_dict() for image in images])


def answer(value: Any) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text, content_type="application/json; charset=utf-8")


def add_headers(response: Response) -> Response:
    renewed = {**g.claims, "exp": int(time.time()) + 4 * 3600}
    headers = response.headers
    headers["Cache-Control"] = "no-cache, no-store, must-revalidate, private, max-age=0"
    headers["Pragma"] = "no-cache"
    headers["Expires"] = "Fri, 01 Jan 1990 00:00:00 GMT"
    headers["X-Frame-Options"] = "DENY"
    headers["X-XSS-Protection"] = "1; mode=block"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Download-Options"] = "noopen"
    headers["X-Permitted-Cross-Domain-Policies"] = "none"
    headers["X-token"] = jwt.encode(renewed, current_app.config["SECRET"], "HS256")
    headers["Vary"] = "Accept-Encoding"
    headers["P3P"] = 'CP="NOI ADM DEV PSAi COM NAV OUR OTRo STP IND DEM"'
    headers["X-Request-Id"] = str(uuid.uuid4())
    headers["X-Runtime"] = f"{time.perf_counter() - g.started:.6f}"
    return response


if "BENCH_DATABASE" in os.environ:
    app = create_app(os.environ["BENCH_DATABASE"], os.environ["BENCH_SECRET"])
