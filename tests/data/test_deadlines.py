"""Waiting that ends."""

import threading

import pytest

from diffjax.data.deadlines import while_growing, within


def test_results_and_errors_come_through():
    assert within(60.0, lambda _: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda _: 1 // 0)
    assert while_growing(lambda _: 3, lambda: 0, seconds=60.0, least=1) == 3
    with pytest.raises(ZeroDivisionError):
        while_growing(lambda _: 1 // 0, lambda: 0, seconds=60.0, least=1)


def test_the_work_is_told_that_nobody_waits_any_more():
    told = threading.Event()

    def work(given_up):
        given_up.wait(60)
        told.set()

    with pytest.raises(TimeoutError, match=r"no end after 0\.1 s"):
        within(0.1, work)
    assert told.wait(60)


def test_work_that_grows_is_waited_for_and_work_that_does_not_is_not():
    done = iter(range(0, 100, 10))
    ended = threading.Event()

    def size():
        now = next(done, None)
        if now is None:
            ended.set()
            return 100
        return now

    wait = {"seconds": 0.05, "least": 10}
    assert while_growing(lambda _: ended.wait(60), size, **wait)
    with pytest.raises(TimeoutError, match=r"only 7 bytes came in 0\.05 s"):
        sizes = iter([0])
        while_growing(
            lambda given_up: given_up.wait(60), lambda: next(sizes, 7), **wait
        )
