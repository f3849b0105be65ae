"""Packing on a made-up device: what is asked comes back, in few and full tiles."""

from collections import Counter

import jax
import numpy as np
import pytest

from diffjax.errors import DiffjaxError
from diffjax.scoring.grid import Tile
from diffjax.scoring.packing import MOST_OPEN, TILES_AHEAD, Cells, Packer
from diffjax.scoring.rows import PAIR, most_classes, split_classes, width_for


def truth(key, classes, timesteps, noises):
    """The error of a cell, by one loss and by another."""
    e = key * 1e4 + np.asarray(classes)[:, None] * 100 + timesteps + noises / 8
    return np.stack([e, -e]).astype(np.float32)


class Device:
    """Takes the place of a grid: computes at once, counts, and fails when told to."""

    losses = ("a", "b")

    def __init__(self, cells=32, devices=1, most=None, together=False):
        self.cells, self.most, self.together = cells, most, together
        self.devices = devices
        self.shapes, self.waiting, self.longest = Counter(), 0, 0

    def tile(self, classes, cells=None):
        blocks = (self.cells if cells is None else cells) // classes
        n = self.devices
        return Tile(blocks=max(1, blocks // n) * n, classes=classes)

    def check(self, timesteps, noises):
        pass

    def errors(self, conditions, blocks):
        shape = blocks.classes.shape
        assert shape[0] % self.devices == 0
        self.shapes[shape] += 1
        self.waiting += 1
        self.longest = max(self.longest, self.waiting)
        values = np.stack(
            [
                truth(int(k), c, np.array([t]), np.array([n]))[:, :, 0]
                for k, c, t, n in zip(
                    blocks.keys,
                    blocks.classes,
                    blocks.timesteps,
                    blocks.noises,
                    strict=True,
                )
            ],
            axis=1,
        )
        return Result(self, values, fails=self.most and np.prod(shape) > self.most)


class Result:
    """An array that has yet to be computed."""

    def __init__(self, device, values, fails):
        self.device, self.values, self.fails = device, values, fails

    def copy_to_host_async(self):
        pass

    def is_ready(self):
        return False

    def __array__(self, *args, **kwargs):
        self.device.waiting -= 1
        if self.fails:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return self.values


class Image:
    """A search with some rounds, each of fewer classes, then done."""

    def __init__(self, key, rounds):
        self.key, self.rounds, self.z0 = key, list(rounds), np.zeros((2, 2, 1))
        self.seconds, self.cells, self.found = 0.0, 0, []
        self.told = {}

    def request(self):
        if len(self.found) == len(self.rounds):
            return None
        n, s = self.rounds[len(self.found)]
        rng = np.random.default_rng([self.key, len(self.found)])
        self.asked = Cells(
            np.sort(rng.permutation(60)[:n]), rng.integers(0, 99, s), np.arange(s)
        )
        return self.asked

    def receive(self, errors):
        np.testing.assert_array_equal(errors, truth(self.key, *self.asked))
        self.found.append(errors)

    def advance(self, cells):
        self.cells += cells


def pack(device, images, classes):
    packer = Packer(device, None, classes)
    done = list(packer.run(iter(images)))
    assert Counter(map(id, done)) == Counter(map(id, images))  # each once
    for image in images:
        assert len(image.found) == len(image.rounds)
        assert image.cells == sum(n * s for n, s in image.rounds)
    return packer


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("n_images", [1, 3, 70])
def test_every_cell_comes_back(n_images, devices):
    rounds = [(10, 5), (5, 20), (3, 1), (1, 2)]
    images = [Image(k, rounds[: 1 + k % 4]) for k in range(n_images)]
    device = Device(devices=devices)
    packer = pack(device, images, 10)
    assert packer.work.tiles == sum(device.shapes.values())
    assert packer.work.passes == sum(b * k * n for (b, k), n in device.shapes.items())


def test_few_shapes_and_full_tiles():
    """Racing images: from 37 classes down to two, four samples a time."""
    alive = [37, 30, 22, 17, 12, 9, 8, 7, 6, 5, 4, 3, 2, 2, 2]
    images = [Image(k, [(n, 4) for n in alive]) for k in range(70)]
    device = Device(cells=64)
    packer = pack(device, images, 37)
    assert len(device.shapes) <= 4
    useful = 70 * 4 * sum(alive)
    assert useful > 0.9 * packer.work.passes
    assert device.longest == TILES_AHEAD + 1  # the device always has some to go on


def test_one_image_alone_is_done_too():
    device = Device(cells=32)
    packer = pack(device, [Image(0, [(3, 1), (2, 1)])], 3)
    assert packer.work.passes <= 2 * 8  # small tiles for small requests


def test_images_are_taken_as_they_are_needed():
    taken = []

    def images():
        for k in range(1000):
            taken.append(k)
            yield Image(k, [(10, 50)])

    packer = Packer(Device(), None, 10)
    first = next(iter(packer.run(images())))
    assert first.found
    assert len(taken) < 5
    many = Packer(Device(cells=10**6), None, 10)
    taken.clear()
    next(iter(many.run(images())))
    assert len(taken) == MOST_OPEN


def test_many_classes_open_few_images():
    """The host keeps a table of errors an image; one alone fills the tiles."""
    for classes, most in ((10, 64), (2500, 64), (10_000, 16), (10**6, 4)):
        packer, taken = Packer(Device(cells=1000), None, classes), []
        images = (taken.append(k) or Image(k, [(2, 1)]) for k in range(100))
        next(iter(packer.run(images)))
        assert len(taken) == most


class Clock:
    """Time that passes when it is told to."""

    now = 0.0


class Timed(Device):
    """Computes one tile after the other, each as long; the host goes on meanwhile."""

    def __init__(self, clock, seconds, **options):
        super().__init__(**options)
        self.clock, self.seconds, self.free, self.idle = clock, seconds, 0.0, 0.0

    def errors(self, conditions, blocks):
        tile = super().errors(conditions, blocks)
        if self.free:
            self.idle += max(0.0, self.clock.now - self.free)
        self.free = max(self.free, self.clock.now) + self.seconds
        return Later(tile, self.clock, self.free)


class Later:
    def __init__(self, tile, clock, end):
        self.tile, self.clock, self.end = tile, clock, end

    def copy_to_host_async(self):
        pass

    def is_ready(self):
        return self.clock.now >= self.end

    def __array__(self, *args, **kwargs):
        self.clock.now = max(self.clock.now, self.end)  # the host waits
        return np.asarray(self.tile)


class Slow(Image):
    """Takes the host some time at every decision."""

    def __init__(self, clock, seconds, *arguments):
        super().__init__(*arguments)
        self.clock, self.thinks = clock, seconds

    def receive(self, errors):
        super().receive(errors)
        self.clock.now += self.thinks


@pytest.mark.parametrize("thinks", [0.01, 0.2, 5.0])
def test_the_device_does_not_wait_for_the_host(monkeypatch, thinks):
    """Unless the host is slower than it; either way the counters tell."""
    clock = Clock()
    monkeypatch.setattr("diffjax.scoring.packing.time.perf_counter", lambda: clock.now)
    alive = [37, 30, 22, 17, 12, 9, 8, 7, 6, 5, 4, 3, 2, 2, 2]
    images = [
        Slow(clock, thinks, k, [(n, 4) for n in alive[: 5 + k % 11]]) for k in range(64)
    ]
    device = Timed(clock, 1.0, cells=64)
    work = pack(device, images, 37).work
    assert work.seconds == pytest.approx(device.free)
    assert (
        work.seconds - work.busy >= device.idle - 1e-6
    )  # it is no better than it says
    if thinks < 1:
        # the last images are alone: the host prunes, and there is nothing else to do
        assert device.idle < 0.02 * work.seconds
        assert work.busy / work.seconds > 0.98
        assert work.late < 0.05 * work.tiles
    else:
        assert device.idle > 0.3 * work.seconds
        assert work.busy / work.seconds < 0.7
        assert work.late > 0.3 * work.tiles


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 10, 37, 100, 101, 1000])
def test_rows_of_classes(n, most):
    for alive in {1, 2, 3, *range(1, n + 1, 7), n - 1, n} - {0}:
        width = width_for(n, most)
        rows = split_classes(alive, width)
        assert set(rows) <= {width, min(PAIR, most)}
        for k, row in rows.items():
            assert row.shape[1] == k
        every = np.concatenate([row.ravel() for row in rows.values()])
        assert set(every) == set(range(alive))
        assert len(every) <= alive + 1
    assert min(2, most) <= width <= most


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("cells", [1, 2, 3, 4, 7, 9, 16, 50])
def test_a_tile_never_holds_more_cells_than_it_may(cells, devices):
    images = [Image(k, [(37, 3), (9, 5), (1, 2)][k % 3 :]) for k in range(9)]
    device = Device(cells=cells, devices=devices)
    pack(device, images, 1000)
    assert max(b * k for b, k in device.shapes) <= max(cells, devices)
    assert len({k for _, k in device.shapes}) <= 2


def test_out_of_memory_halves_the_tile():
    images = [Image(k, [(10, 9), (4, 9)]) for k in range(20)]
    device = Device(cells=160, most=50)
    with pytest.warns(UserWarning, match="going on with 40"):
        pack(device, images, 10)
    [widest] = {k for b, k in device.shapes if b * k == 160}
    assert max(k for _, k in device.shapes) == widest  # blocks are as wide as before


@pytest.mark.parametrize("classes", [3, 10, 37, 1000])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("fits", [1, 2, 3, 4, 5, 7])
def test_out_of_memory_narrows_blocks_where_fewer_do_not_help(fits, devices, classes):
    """A device that holds a single evaluation does them all, one by one."""
    rounds = [(min(classes, 60), 3), (min(classes, 9), 4), (1, 2)]
    images = [Image(k, rounds) for k in range(7)]
    device = Device(cells=64, devices=devices, most=fits * devices)
    with pytest.warns(UserWarning, match="going on with"):
        pack(device, images, classes)  # checks the errors and the counts
    most = most_classes(fits * devices, devices)
    held = [k for b, k in device.shapes if b * k <= fits * devices]
    assert held and max(held) <= most


def test_memory_that_gets_short_in_the_middle():
    """What was computed before stays, and nothing is counted twice."""
    images = [Image(k, [(37, 9), (8, 20), (2, 9)]) for k in range(12)]
    device = Device(cells=64)
    packer = Packer(device, None, 37)
    done = packer.run(iter(images))
    first = next(done)
    device.most = 3
    with pytest.warns(UserWarning, match="going on with 2"):
        rest = list(done)
    assert len({id(first), *map(id, rest)}) == 12
    for image in images:
        assert len(image.found) == 3
        assert image.cells == 37 * 9 + 8 * 20 + 2 * 9


def test_processes_that_share_tiles_do_not_shrink_alone():
    """The others would wait for a tile of the former shape."""
    device = Device(cells=64, most=50, together=True)
    packer = Packer(device, None, 10)
    with pytest.raises(DiffjaxError, match="all of them --cells 32"):
        list(packer.run(iter([Image(0, [(10, 9)])])))


def test_no_memory_at_all_is_an_error_with_a_remedy():
    device = Device(cells=160, most=0.5)
    packer = Packer(device, None, 10)
    with (
        pytest.warns(UserWarning, match="does not hold"),
        pytest.raises(DiffjaxError, match="smaller dtype"),
    ):
        list(packer.run(iter([Image(0, [(10, 9)])])))


def test_other_failures_of_the_device_are_not_hidden():
    device = Device()
    device.errors = lambda *args: (_ for _ in ()).throw(
        jax.errors.JaxRuntimeError("INTERNAL: broken")
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        list(Packer(device, None, 10).run(iter([Image(0, [(10, 9)])])))


@pytest.mark.parametrize("seed", range(10))
def test_there_are_three_programs_and_wide_tiles_are_full(seed):
    rng = np.random.default_rng(seed)
    rounds = [[(7, 5), (int(rng.integers(1, 7)), 3)] for _ in range(9)]
    device = Device(cells=32)
    pack(device, [Image(i, each) for i, each in enumerate(rounds)], 7)
    shapes = Counter(device.shapes)
    assert len(shapes) <= 3
    wide = [(blocks, width) for blocks, width in shapes if width > 2]
    assert wide in ([], [(32 // 7, 7)])
