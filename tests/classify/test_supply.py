"""Images that a thread makes ready: in time, in order, and none for ever."""

import threading
from functools import partial
from itertools import count

import jax.numpy as jnp
import numpy as np
import pytest
from small import images

from diffjax.classify import classifier as module
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.supply import NAME, READY, Supply
from diffjax.errors import DiffjaxError
from diffjax.schedules import Schedule
from diffjax.scoring.grid import Tile
from diffjax.scoring.packing import Cells, Packer
from diffjax.scoring.work import Work
from diffjax.strategies.racing import Racing

SOON = 30  # seconds, which only a failing test waits


def threads():
    return [each for each in threading.enumerate() if each.name == NAME]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in threads():
        thread.join(SOON)
    assert not threads()


class Image:
    """A search of one tile."""

    def __init__(self, key):
        self.key, self.z0, self.told = key, np.zeros((1, 1, 1), np.float32), {}
        self.seconds, self.asked = 0.0, False

    def request(self):
        if self.asked:
            return None
        self.asked = True
        return Cells(np.arange(2), np.zeros(2, int), np.zeros(2, int))

    def receive(self, errors):
        pass

    def advance(self, cells):
        pass


class Grid:
    """Has computed a tile when ``done`` of its number says so."""

    losses, cells, devices, together = ("l2",), 4, 1, False

    def __init__(self, done=lambda tile: None):
        self.done, self.tiles = done, 0

    def tile(self, classes, cells=None):
        return Tile(blocks=max(1, (cells or self.cells) // classes), classes=classes)

    def check(self, timesteps, noises):
        pass

    def errors(self, conditions, blocks):
        self.tiles += 1
        values = np.zeros((1, *blocks.classes.shape), np.float32)
        return Errors(partial(self.done, self.tiles), values)


class Errors:
    def __init__(self, done, values):
        self.done, self.values = done, values

    def copy_to_host_async(self):
        pass

    def is_ready(self):
        return False

    def __array__(self, *args, **kwargs):
        self.done()
        return self.values


class Reader:
    """Images, each made once ``may`` says so; ``made`` were handed over."""

    def __init__(self, n, may=lambda: None):
        self.n, self.may, self.made, self.told = n, may, 0, threading.Condition()

    def __iter__(self):
        for key in range(self.n):
            self.may()
            yield Image(key)
            with self.told:
                self.made += 1
                self.told.notify_all()

    def wait_for(self, made):
        with self.told:
            assert self.told.wait_for(lambda: self.made >= min(self.n, made), SOON)


def pack(grid, searches):
    return sorted(each.key for each in Packer(grid, None, 2).run(iter(searches)))


def test_a_grid_that_takes_longer_than_reading_never_waits():
    """While it computes a tile, which is an image here, one more is read."""
    reader, work = Reader(50), Work()
    grid = Grid(done=lambda tile: reader.wait_for(READY + tile))
    with Supply(reader, work) as supply:
        reader.wait_for(READY)
        assert pack(grid, supply) == list(range(50))
    assert work.unready == 0
    assert "for images 0 times" in str(work)


def test_a_grid_that_waits_for_every_image_says_so(monkeypatch):
    asked, main = threading.Semaphore(0), threading.current_thread()

    class Asking(threading.Condition):
        def wait_for(self, *args):
            if threading.current_thread() is main:
                asked.release()
            return super().wait_for(*args)

    reader, work = Reader(10, may=lambda: asked.acquire(timeout=SOON)), Work()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Condition", Asking)
        supply = Supply(reader, work)
    with supply:
        assert pack(Grid(), supply) == list(range(10))
    assert work.unready == 9  # all but the first
    assert "for images 9 times" in str(work)


def test_so_many_are_ready_and_no_more():
    taken, most = 0, []
    reader = Reader(3 * READY, may=lambda: most.append(reader.made - taken))
    with Supply(reader, Work()) as supply:
        for image in supply:
            assert image.key == taken
            taken += 1
            reader.wait_for(min(taken + READY, reader.n))
    assert taken == reader.n
    assert max(most) in (READY, READY + 1)  # one may be on its way into a hand


def test_what_goes_wrong_is_raised_at_its_image():
    def reader():
        yield from "ab"
        raise OSError("c is gone")

    for _ in range(2):  # the second run is none the worse for the first
        with Supply(reader(), Work()) as supply:
            each = iter(supply)
            assert [next(each), next(each)] == ["a", "b"]
            with pytest.raises(OSError, match="c is gone"):
                next(each)


def test_whoever_leaves_early_leaves_no_thread():
    with pytest.raises(KeyboardInterrupt), Supply(count(), Work()) as supply:
        for item in supply:
            if item == 3:
                raise KeyboardInterrupt
    assert not threads()


def test_a_reader_that_hangs_does_not_hold_the_others_up(monkeypatch):
    monkeypatch.setattr("diffjax.classify.supply.PATIENCE", 0.01)
    never = threading.Event()
    reader = Reader(2, may=lambda: never.wait(SOON))
    with pytest.raises(KeyboardInterrupt), Supply(reader, Work()):
        raise KeyboardInterrupt
    never.set()
    for thread in threads():
        thread.join(SOON)
    assert reader.made == 0  # what it was at, and no more, and nobody was given it


class InTurn:
    """In place of a supply: everything is made when it is asked for."""

    def __init__(self, items, work):
        self.items = items

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return iter(self.items)


@pytest.fixture(scope="module")
def classifier():
    return DiffusionClassifier.from_denoiser(
        lambda z_t, t, condition: jnp.tanh(z_t * condition.sum() + condition[t % 4]),
        Schedule.named("cosine"),
        latent_shape=(8, 8, 1),
        conditions=np.random.default_rng(0).standard_normal((5, 4), np.float32),
        name="small",
        strategy=Racing(n_samples=12),
        cells=8,
    )


def test_answers_are_to_the_bit_what_they_are_without_a_thread(classifier, monkeypatch):
    candidates = classifier.candidates(None)
    given = images(9)

    def read():
        for name, image in enumerate(given):
            yield name, DiffjaxError("no") if name == 4 else classifier.encode(image)

    found = list(classifier.score(read(), candidates))
    assert not threads()
    monkeypatch.setattr(module, "Supply", InTurn)
    for (name, one), (other, two) in zip(
        found, classifier.score(read(), candidates), strict=True
    ):
        assert name == other
        if name == 4:
            assert isinstance(one, DiffjaxError) and isinstance(two, DiffjaxError)
            continue
        np.testing.assert_array_equal(one.table.errors, two.table.errors)
        assert one.scores() == two.scores()


def test_a_run_that_is_interrupted_leaves_no_thread(classifier):
    [image] = images(1)
    endless = ((k, classifier.encode(image)) for k in count())
    with pytest.raises(KeyboardInterrupt):
        for _ in classifier.score(endless, classifier.candidates(None)):
            raise KeyboardInterrupt
    assert not threads()
