"""huey through hotring: tasks worked off by a consumer in threads of this process.

Arguments: see `check.py`. Its keys have no hash tags: it needs all of them on one shard.
"""

from huey import RedisHuey

from check import HOST, PATIENCE, PORT, end, run, until

huey = RedisHuey("tests", host=HOST, port=PORT)


@huey.task()
def add(a, b):
    return a + b


def a_task():
    assert add(2, 3).get(blocking=True, timeout=PATIENCE) == 5


def many_tasks():
    assert [result.get(blocking=True, timeout=PATIENCE) for result in add.map([(n, n) for n in range(20)])] == [
        2 * n for n in range(20)
    ]


def a_lock():
    with huey.lock_task("lock"):
        assert huey.is_locked("lock")
    assert not huey.is_locked("lock")


def a_scheduled_task():
    result = add.schedule((1, 2), delay=3600)
    # The consumer puts it there.
    until("it is scheduled", lambda: huey.scheduled_count() == 1)
    result.revoke()
    assert result.is_revoked()


consumer = huey.create_consumer(workers=1, periodic=False)
consumer.start()
run("huey", a_task, many_tasks, a_lock, a_scheduled_task)
consumer.stop(graceful=True)
end()
