"""Rate limiters by the library `limits` through hotring: scripts, each on keys that begin alike.

Arguments: see `check.py`.
"""

from limits import parse, storage, strategies

from check import URL, end, run

store = storage.storage_from_string(URL)


def limiter(strategy):
    one, rate, what = strategy(store), parse("3/hour"), strategy.__name__
    for user in range(20):
        assert [one.hit(rate, what, str(user)) for _ in range(4)] == [True] * 3 + [False]
        assert one.get_window_stats(rate, what, str(user)).remaining == 0
        assert not one.test(rate, what, str(user))
    one.clear(rate, what, "7")
    assert one.hit(rate, what, "7")


def storage_itself():
    assert store.check()


def fixed_window():
    limiter(strategies.FixedWindowRateLimiter)


def moving_window():
    limiter(strategies.MovingWindowRateLimiter)


def sliding_window():
    limiter(strategies.SlidingWindowCounterRateLimiter)


run("limits", storage_itself, fixed_window, moving_window, sliding_window)
end()
