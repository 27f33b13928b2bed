"""rq through hotring: jobs put into a queue and worked off in this process.

Arguments: see `check.py`. Its keys have no hash tags: it needs all of them on one shard.
"""

import redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry

from check import HOST, PATIENCE, PORT, end, run

connection = redis.Redis(HOST, PORT, socket_timeout=PATIENCE)
queue = Queue("tests", connection=connection)


# By name: functions of a script's own are not taken.
ADD, DIVIDE = "operator.add", "operator.floordiv"


def work():
    SimpleWorker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")


def a_job():
    job = queue.enqueue(ADD, 2, 3)
    assert queue.job_ids == [job.id] and Job.fetch(job.id, connection=connection).get_status() == JobStatus.QUEUED
    work()
    assert job.return_value() == 5 and job.get_status() == JobStatus.FINISHED and queue.is_empty()


def jobs_that_depend_on_others():
    first = queue.enqueue(ADD, 1, 1)
    second = queue.enqueue(ADD, 2, 2, depends_on=first)
    assert second.get_status() == JobStatus.DEFERRED
    work()
    assert (first.return_value(), second.return_value()) == (2, 4)


def a_job_that_fails():
    job = queue.enqueue(DIVIDE, 1, 0)
    retried = queue.enqueue(DIVIDE, 1, 0, retry=Retry(max=2))
    work()
    assert job.get_status(refresh=True) == JobStatus.FAILED and "ZeroDivisionError" in job.latest_result().exc_string
    assert set(FailedJobRegistry(queue=queue).get_job_ids()) == {job.id, retried.id}


run("rq", a_job, jobs_that_depend_on_others, a_job_that_fails)
end()
