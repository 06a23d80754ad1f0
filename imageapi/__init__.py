"""Image API: the image backend for photo albums that are not tied to one vendor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flask

from imageapi import catalog, cli, extensions, telemetry, traces
from imageapi.auth import guard
from imageapi.auth.revocation import Authority
from imageapi.blueprints import (
    albums,
    docs,
    files,
    images,
    openapi,
    ops,
    problems,
    reports,
    responses,
    shares,
    tags,
    traffic,
)
from imageapi.catalog import background, readiness
from imageapi.connections import Limits
from imageapi.settings import Settings, SettingsError, load, unknown, variable

API = "/api/v1"


class _Application(flask.Flask):
    """Flask, telling of each answer, without what it does for coroutines: there are none here."""

    def finalize_request(self, *arguments: Any, **options: Any) -> flask.Response:
        """The answer, of which is told once nothing can change it any more."""
        response: flask.Response = super().finalize_request(*arguments, **options)
        reports.finish(response)
        return response

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is."""
        return func


def create_app(settings: Settings | None = None) -> flask.Flask:
    """The application.

    Args:
        settings: None reads them from the environment.
    Raises:
        SettingsError: the configuration is refused; every fault at once.
    """
    settings = settings or load()
    try:
        settings.instance.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(["IMAGEAPI_INSTANCE: this folder can not be made."]) from error
    telemetry.configure(settings.log_level, requests=settings.access_log, audit=settings.audit_log)

    app = _Application(__name__, static_folder=None)
    app.url_map.merge_slashes = False

    traces.init_app(app)  # before all others, so that what they refuse is a span too
    extensions.init_app(
        app,
        settings.database,
        Limits(
            settings.database_connect_timeout,
            settings.database_statement_timeout,
            settings.database_lock_timeout,
        ),
        settings.database_pool_size,
        settings.database_pool_timeout,
    )
    catalog.init_app(app, settings)
    _warn_of_unknown_settings(app)
    background.init_app(app)
    readiness.init_app(app)

    responses.init_app(app)
    traffic.init_app(app, settings)
    app.register_blueprint(images.blueprint, url_prefix=API)
    app.register_blueprint(albums.blueprint, url_prefix=API)
    app.register_blueprint(tags.blueprint, url_prefix=API)
    app.register_blueprint(shares.blueprint, url_prefix=API)
    app.register_blueprint(files.blueprint)
    app.register_blueprint(ops.blueprint)
    app.register_blueprint(openapi.blueprint)
    app.register_blueprint(docs.blueprint)
    problems.init_app(app)
    guard.init_app(
        app,
        Authority(settings.secret_keys, settings.token_max_age, require_iat=settings.require_iat),
    )
    cli.init_app(app)

    if settings.trusted_proxies:
        behind = traffic.behind_proxies(app.wsgi_app, settings.trusted_proxies)
        app.wsgi_app = behind  # type: ignore[assignment, method-assign]
    return app


def _warn_of_unknown_settings(app: flask.Flask) -> None:
    """Say which names mean nothing: a mistyped one leaves its setting at the default."""
    known = [variable(field) for field in dataclasses.fields(Settings)]
    with app.app_context():
        known += catalog.library().storages.variables()
    for sentence in unknown(known):
        telemetry.log.warning(sentence)
