"""What Celery workers do: the work that messages tell of, what none tells of, and chores by the clock.

Rows are the truth (`work.py`): a task may come twice, late or never. A worker asks the rows for what is
due when it starts and every few seconds after, so that it needs no beat beside it; beat has `collect` and
`fsck` done, where cron does not. That also stands for acknowledgements: kombu emulates them on Redis by
further keys, hands out again what takes longer than a visibility timeout (celery/celery issue 5935), and
brings a worker down that acknowledges over a connection which was lost meanwhile.

Source: design §6, §7; https://docs.celeryq.dev/en/stable/userguide/configuration.html,
https://docs.celeryq.dev/en/stable/userguide/extending.html (bootsteps).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from celery import Celery, bootsteps
from celery.schedules import crontab
from celery.signals import worker_process_shutdown, worker_ready
from flask import Flask
from kombu.transport.virtual import QoS

from imageapi.catalog import collecting, upkeep, work
from imageapi.settings import Settings
from imageapi.telemetry import log

LOOK = 5.0
"""Seconds between two looks of a worker for due work, and the most that one of them goes on."""
BOUND = 900
"""Seconds after which a piece of work is ended by force, to be taken up again."""
ANSWER = 1.0
"""Seconds that a broker has to answer one who tells it something."""
DAY = 24 * 3600

# Nor is a message put back when its connection is closed, which fails where the broker has died.
QoS.restore_at_shutdown = False

_DO, _DUE = "imageapi.do", "imageapi.due"


class _Celery(Celery):
    """Celery, and how this application tells it what to do."""

    def tell(self, numbers: Iterable[int]) -> None:
        """Send the numbers of work to the workers.

        Raises: whatever the broker's client does when the broker is not there, soon.
        """
        self._send(_DO, ([number] for number in numbers))

    def look(self, *_timer: object) -> None:
        """Have a worker look for due work."""
        try:
            self._send(_DUE, [[]], expires=LOOK)
        except Exception as error:  # noqa: BLE001 - each transport has errors of its own
            log.warning("broker does not answer", why=type(error).__name__)

    def _send(self, task: str, arguments: Iterable[list[int]], **options: Any) -> None:
        # A connection of its own: it has other timeouts than a worker's, which waits for messages, and
        # declares its queue anew, which a broker that was emptied has forgotten.
        bounds = {"socket_timeout": ANSWER, "socket_connect_timeout": ANSWER, "max_retries": 0}
        with self.connection_for_write(transport_options=bounds) as connection:
            for each in arguments:
                self.send_task(task, each, connection=connection, retry=False, **options)


class _Looks(bootsteps.StartStopStep):
    """A step of a worker's start: it looks for due work from then on."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def start(self, worker: Any) -> None:
        worker.timer.call_after(0, worker.app.look)
        worker.timer.call_repeatedly(LOOK, worker.app.look)


def celery(app: Flask, settings: Settings) -> Celery:
    """The Celery application on the broker of the settings; nothing is connected to yet."""
    made = _Celery("imageapi", broker=settings.broker_url)
    made.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_transport_options={"ack_emulation": False},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        beat_schedule_filename=str(settings.instance / "celerybeat"),
        timezone="UTC",
    )
    made.steps["worker"].add(_Looks)
    worker_ready.connect(lambda **_: log.info("worker ready"), weak=False)
    worker_process_shutdown.connect(lambda **_: app.extensions["reader"].close(), weak=False)
    _add_work(app, made)
    _add_chores(app, made, settings.fsck_every)
    return made


def _add_work(app: Flask, made: Celery) -> None:
    @made.task(name=_DO, time_limit=BOUND)
    def do(number: int) -> None:
        """Do one piece of work, unless another has it."""
        with app.app_context():
            work.run(number)

    @made.task(name=_DUE, time_limit=BOUND)
    def due() -> None:
        """Do what is due, for as long as the next look is not."""
        end = time.monotonic() + LOOK
        with app.app_context():
            while time.monotonic() < end and work.run_due(end):
                pass


def _add_chores(app: Flask, made: Celery, fsck_every: str) -> None:
    # They may take hours, and begin anew tomorrow.
    long = {"acks_late": False, "time_limit": DAY}

    @made.task(name="imageapi.collect", **long)
    def collect() -> None:
        """Remove what nobody has needed for a day, as `flask collect` does."""
        with app.app_context():
            collected = collecting.collect(collecting.Rule(older_than=DAY))
        log.info("collected", **collected.tally)
        for name, part in collected.stopped.items():
            log.error("not collected", storage=name, without_row=round(part, 3))
        for name, reason in collected.faults.items():
            log.error("not collected", storage=name, why=reason)

    @made.task(name="imageapi.fsck", **long)
    def fsck() -> None:
        """Hold all stored bytes against the rows, as `flask fsck` does."""
        with app.app_context():
            for finding in upkeep.fsck(upkeep.Scope()):
                tell = log.error if finding.harmful else log.warning
                tell("fsck", fault=finding.fault, storage=finding.storage, key=finding.key)
        log.info("fsck done")

    daily, sunday = crontab(hour=4, minute=30), crontab(hour=4, minute=30, day_of_week="sunday")
    made.conf.beat_schedule = {
        "collect": {"task": collect.name, "schedule": crontab(hour=3, minute=15)}
    }
    if fsck_every != "never":
        schedule = daily if fsck_every == "day" else sunday
        made.conf.beat_schedule["fsck"] = {"task": fsck.name, "schedule": schedule}
