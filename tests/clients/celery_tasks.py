"""Celery over hotring as broker and result store: a worker in the solo pool, and tasks there and back.

Arguments: see `check.py`. Over several shards all keys get one hash tag.
"""

import sys
import threading

from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker

from check import PATIENCE, SHARDS, URL, end, run

app = Celery("tests", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=False,
    broker_transport_options={"global_keyprefix": "{celery}"},
    result_backend_transport_options={"global_keyprefix": "{celery}"},
    task_default_queue="tests",
    worker_hijack_root_logger=False,
)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=2)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


def one_task():
    assert add.delay(2, 3).get(timeout=PATIENCE) == 5


def many_tasks():
    results = group(add.s(n, n) for n in range(20)).apply_async().get(timeout=PATIENCE)
    assert results == [2 * n for n in range(20)]


def chain():
    assert (add.s(1, 2) | add.s(4) | add.s(5)).delay().get(timeout=PATIENCE) == 12


def chord_of_tasks():
    assert chord((add.s(n, n) for n in range(5)), total.s()).delay().get(timeout=PATIENCE) == 20


def retried_task():
    assert third_time.delay().get(timeout=PATIENCE) == 2


def delayed_task():
    assert add.apply_async((1, 1), countdown=0.1).get(timeout=PATIENCE) == 2


def remote_control():
    assert list(app.control.ping(timeout=PATIENCE, limit=1)[0].values()) == [{"ok": "pong"}]


if __name__ == "__main__":
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=PATIENCE):
        run("celery", one_task, many_tasks, chain, chord_of_tasks, retried_task, delayed_task, remote_control)
    end()
