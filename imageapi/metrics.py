"""What is counted, for Prometheus: every metric once, labelled with words of ours alone.

Under gunicorn each process counts in a file of `PROMETHEUS_MULTIPROC_DIR`, which `gunicorn.conf.py`
sets; a scrape reads them all. Without it, a process tells of itself. Labels never hold what a client
sends: endpoints, methods, statuses, codes and storages are few.

Source: https://prometheus.github.io/client_python/multiprocess/.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
__all__ = [
    "CONTENT_TYPE",
    "Metric",
    "breaker",
    "decode",
    "decoding",
    "gauge",
    "refusal",
    "request",
    "scrape",
    "storage_call",
    "upload",
]
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})

_here = CollectorRegistry()
_REQUESTS = Histogram(
    "imageapi_request_seconds",
    "Requests, and the seconds until their answer was ready.",
    ["endpoint", "method", "status"],
    registry=_here,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_REFUSALS = Counter(
    "imageapi_refusals", "Requests refused, by the problem's code.", ["endpoint", "code"],
    registry=_here,
)  # fmt: skip
_STORAGE_CALLS = Histogram(
    "imageapi_storage_call_seconds",
    "Attempts of calls of a storage; outcome: ok, an error's code, or not_tried.",
    ["storage", "operation", "outcome"],
    registry=_here,
    buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_BREAKERS = Gauge(
    "imageapi_storage_breaker_open",
    "1 where a process does not ask a storage at the moment, as it does not answer.",
    ["storage"],
    registry=_here,
    multiprocess_mode="livemax",
)
_DECODES = Histogram(
    "imageapi_decode_seconds",
    "Pictures decoded, from the request for a core on; task: take_in, render or probe.",
    ["task", "outcome"],
    registry=_here,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_DECODING = Gauge(
    "imageapi_decodes_in_progress",
    "Pictures that are being decoded, or wait for a core; task as above.",
    ["task"],
    registry=_here,
    multiprocess_mode="livesum",
)
_UPLOADS = Counter(
    "imageapi_uploads", "Pictures taken in; outcome: new, or duplicate.", ["outcome"],
    registry=_here,
)  # fmt: skip
_UPLOADED = Counter(
    "imageapi_uploaded_bytes", "Bytes of pictures taken in, by outcome.", ["outcome"],
    registry=_here,
)  # fmt: skip

# `labels()` looks a child up under a lock, with its texts made anew: as much as counting itself.
_request = functools.cache(_REQUESTS.labels)
_refusal = functools.cache(_REFUSALS.labels)
_storage_call = functools.cache(_STORAGE_CALLS.labels)


def request(endpoint: str, method: str, status: int, seconds: float) -> None:
    """Count a request that was answered."""
    _request(endpoint, method if method in _METHODS else "other", status).observe(seconds)


def refusal(endpoint: str, code: str) -> None:
    """Count a request that was refused with this code."""
    _refusal(endpoint, code).inc()


def storage_call(storage: str, operation: str, seconds: float, outcome: str) -> None:
    """Count an attempt of a call of a storage, or one that was not even tried."""
    _storage_call(storage, operation, outcome).observe(seconds)


def breaker(storage: str, *, is_open: bool) -> None:
    """Tell whether this process has given up on a storage for the moment."""
    _BREAKERS.labels(storage).set(is_open)


def decode(task: str, outcome: str, seconds: float) -> None:
    """Count a picture that was decoded, or could not be."""
    _DECODES.labels(task, outcome).observe(seconds)


def decoding(task: str, change: int) -> None:
    """Count decodes that begin (1) and end (-1)."""
    _DECODING.labels(task).inc(change)


def upload(size: int, *, new: bool) -> None:
    """Count a picture of `size` bytes that an album has now, or had before."""
    outcome = "new" if new else "duplicate"
    _UPLOADS.labels(outcome).inc()
    _UPLOADED.labels(outcome).inc(size)


class _Scrape(Collector):
    """All that was counted, by this process or by all of them, with gauges of this moment."""

    def __init__(self, gauges: Iterable[Metric]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        if _FOLDER in os.environ:
            yield from MultiProcessCollector(None).collect()  # type: ignore[no-untyped-call]
        else:
            yield from _here.collect()
        yield from self._gauges


def gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge of this moment: its values by what its one label says."""
    made = GaugeMetricFamily(f"imageapi_{name}", text, labels=[label])
    for word, value in values.items():
        made.add_metric([word], value)
    return made


def scrape(gauges: Iterable[Metric]) -> bytes:
    """All metrics in Prometheus' text format, `CONTENT_TYPE`."""
    return generate_latest(_Scrape(gauges))
