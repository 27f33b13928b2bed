"""Django's cache and django-redis through hotring.

Arguments: see `check.py`.
"""

import django
import redis
from django.conf import settings

from check import SHARDS, URL, end, raises, run

settings.configure(
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL},
        "elsewhere": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{URL}/1"},
        "rich": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{URL}/2", "KEY_PREFIX": "rich"},
        # Hash tags keep on one shard what is set or deleted in one transaction.
        "rich together": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{URL}/3", "KEY_PREFIX": "{rich}"},
        "together": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL, "KEY_PREFIX": "{app}"},
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402: needs the settings
from django.core.cache import caches  # noqa: E402

cache, elsewhere, together = (caches[name] for name in ("default", "elsewhere", "together"))
rich, rich_together = caches["rich"], caches["rich together"]
MANY = {f"{n}:many": n for n in range(50)}


def one_key():
    cache.set("a", {"x": [1, 2]}, 100)
    assert cache.get("a") == {"x": [1, 2]} and cache.get("none", 7) == 7
    assert cache.add("a", 1) is False and cache.add("b", 1) is True
    cache.set("n", 1)
    assert cache.incr("n", 5) == 6 and cache.decr("n") == 5
    assert cache.touch("a", 50) and cache.has_key("a") and cache.delete("a") and not cache.has_key("a")
    assert cache.get_or_set("computed", lambda: 3) == 3


def many_keys():
    for key, value in MANY.items():
        cache.set(key, value)
    assert cache.get_many(MANY) == MANY
    cache.delete_many(list(MANY)[:20])
    assert cache.get_many(MANY) == dict(list(MANY.items())[20:])


def many_keys_set_together():
    # MSET, and EXPIREs if there is a timeout, in a transaction.
    assert together.set_many(MANY, timeout=None) == []
    assert together.set_many(MANY, timeout=100) == []
    assert together.get_many(MANY) == MANY and together.get("1:many") == 1
    if len(SHARDS) > 1:
        apart = {f"{n}:apart": n for n in range(50)}
        raises(redis.ResponseError, "slot", lambda: cache.set_many(apart, timeout=100))
        assert cache.get_many(apart) == {}


def clear():
    for key, value in MANY.items():
        cache.set(key, value)
        elsewhere.set(key, value)
    elsewhere.clear()
    assert elsewhere.get_many(MANY) == {} and cache.get_many(MANY) == MANY
    cache.clear()
    assert cache.get_many(MANY) == {}


def sessions():
    session = SessionStore()
    session["user"] = 7
    session.create()
    assert SessionStore(session.session_key)["user"] == 7
    session.cycle_key()
    assert SessionStore(session.session_key)["user"] == 7
    session.flush()
    assert not SessionStore().exists(session.session_key or "none")


def django_redis_values():
    rich.set("a", "x", timeout=100)
    assert rich.get("a") == "x" and 0 < rich.ttl("a") <= 100 and not rich.set("a", "y", nx=True)
    assert rich.persist("a") and rich.ttl("a") is None and rich.expire("a", 100)
    rich.set("n", 1)
    assert rich.incr("n") == 2 and rich.incr_version("a") == 2 and rich.get("a", version=2) == "x"


def django_redis_keys_and_patterns():
    for key, value in MANY.items():
        rich.set(key, value)
    rich_together.set_many(MANY)
    for one in (rich, rich_together):
        assert one.get_many(MANY) == MANY
        assert set(one.keys("*:many")) == set(MANY) == set(one.iter_keys("*:many", itersize=10))
        assert one.delete_many(["20:many", "30:many"]) == 2
    if len(SHARDS) > 1:
        raises(redis.ResponseError, "slot", lambda: rich.delete_pattern("1*:many"))
        assert len(rich.keys("1*:many")) == 11
    assert rich_together.delete_pattern("1*:many", itersize=10) == 11
    assert not any(key.startswith("1") for key in rich_together.keys("*:many"))
    rich.clear()
    assert rich.keys("*") == [] and rich_together.keys("*") != []


def django_redis_lock():
    with rich.lock("lock", timeout=30):
        assert not rich.lock("lock", timeout=30).acquire(blocking=False)
    assert rich.lock("lock", timeout=30).acquire(blocking=False)


run("django", one_key, many_keys, many_keys_set_together, clear, sessions)
run("django", django_redis_values, django_redis_keys_and_patterns, django_redis_lock)
end()
