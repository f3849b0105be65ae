"""Work in a thread whose words are an iterator."""

import threading

import pytest

from diffjax.cli.telling import NAME, Left, tellings

SOON = 30.0  # seconds, which only a failing test waits


def test_words_come_in_order_and_then_it_ends():
    def work(tell):
        for number in range(5):
            tell(number)

    assert [each for each in tellings(work, SOON) if each is not None] == list(range(5))


def test_an_error_comes_where_the_next_word_would():
    def work(tell):
        tell("one")
        raise ValueError("broken")

    words = tellings(work, SOON)
    assert next(words) == "one"
    with pytest.raises(ValueError, match="broken"):
        next(words)


def test_silence_is_told():
    go = threading.Event()

    def work(tell):
        go.wait(SOON)
        tell("late")

    words = tellings(work, 0.01)
    assert next(words) is None
    go.set()
    assert next(each for each in words if each is not None) == "late"


def test_who_closes_it_ends_the_work():
    left = threading.Event()

    def work(tell):
        try:
            while True:
                tell("again")
        except Left:
            left.set()
            raise

    words = tellings(work, SOON)
    assert next(words) == "again"
    words.close()
    assert left.wait(SOON)
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(SOON)
            assert not thread.is_alive()
