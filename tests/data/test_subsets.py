"""Which examples are used."""

import numpy as np
import pytest

from diffjax.data.subsets import limited, select, spread
from diffjax.errors import DiffjaxError


class Labelled:
    """A source as far as select looks into it; images are out of its reach."""

    name, split = "set", "test"
    fingerprint, model_classes = "0" * 16, None
    class_names = tuple("abcdef")

    def __init__(self, labels):
        self._labels = np.array(labels, np.int32)

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        raise AssertionError("an image was read")

    def __iter__(self):
        raise AssertionError("images were read")

    def labels(self):
        return self._labels


SORTED = Labelled(np.repeat(np.arange(5), 20))  # class 5 has no examples
MIXED = Labelled(np.random.default_rng(0).permutation(SORTED.labels()))


def test_everything_by_default():
    chosen = select(SORTED)
    assert chosen.dtype == np.int64
    np.testing.assert_array_equal(chosen, np.arange(100))


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ("7", [7]),
        ("0:3", [0, 1, 2]),
        ("98:100, 5, 0:2", [0, 1, 5, 98, 99]),
        ("0:3,1:4,2", [0, 1, 2, 3]),
    ],
)
def test_ranges(subset, expected):
    assert select(SORTED, subset).tolist() == expected


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_a_file_of_indices(tmp_path, dtype):
    path = tmp_path / "subset.npy"
    np.save(path, np.array([9, 3, 99, 3], dtype))
    for subset in (path, str(path)):
        assert select(SORTED, subset).tolist() == [3, 9, 99]


@pytest.mark.parametrize("source", [SORTED, MIXED])
def test_per_class(source):
    chosen = select(source, per_class=3, seed=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    np.testing.assert_array_equal(np.bincount(source.labels()[chosen]), np.full(5, 3))
    np.testing.assert_array_equal(select(source, per_class=3, seed=1), chosen)
    assert select(source, per_class=3, seed=2).tolist() != chosen.tolist()
    assert set(chosen.tolist()) < set(select(source, per_class=7, seed=1).tolist())
    assert len(select(source, per_class=20)) == 100


def test_the_draw_of_a_class_does_not_depend_on_the_others():
    both = select(SORTED, per_class=4)
    alone = select(SORTED, "40:60", per_class=4)
    assert alone.tolist() == [i for i in both if 40 <= i < 60]


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1011, 6495, 13014])
def test_every_beginning_of_the_order_is_evenly_spread(n):
    """In a sorted source, and in one whose classes take turns."""
    order = spread(n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    for k in {1, 2, 3, 10, 30, n // 10, n // 3, n // 2, n - 1} & set(range(1, n)):
        begun = np.sort(order[:k])
        gaps = np.diff([*begun, begun[0] + n])
        assert gaps.max() <= 2.5 * n / k + 1
        for period in {2, 3, 5, 10} & {d for d in range(1, n) if n % d == 0}:
            counts = np.bincount(begun % period, minlength=period)
            assert np.ptp(counts) <= 2 + 0.02 * k


@pytest.mark.parametrize("chosen", [np.arange(100), np.arange(3, 3000, 7)])
def test_limits_are_nested(chosen):
    before = limited(chosen, 1)
    for limit in range(2, len(chosen) + 2):
        taken = limited(chosen, limit)
        assert set(before) < set(taken) <= set(chosen) or limit > len(chosen)
        assert len(taken) == min(limit, len(chosen))
        np.testing.assert_array_equal(taken, np.sort(taken))
        before = taken
    assert limited(chosen, None) is chosen
    with pytest.raises(DiffjaxError, match="at least 1 image"):
        limited(chosen, 0)


def test_limits_as_they_once_were():
    chosen = limited(np.arange(100), 33, nested=False)
    np.testing.assert_array_equal(chosen, np.arange(33) * 100 // 33)


def test_a_limit_keeps_a_sorted_set_balanced():
    for limit in (10, 15, 20, 50):
        counts = np.bincount(SORTED.labels()[limited(np.arange(100), limit)])
        assert np.abs(counts - limit / 5).max() <= 1


def test_one_after_the_other():
    chosen = select(SORTED, "0:60", per_class=4)
    assert chosen.tolist() == [i for i in select(SORTED, per_class=4) if i < 60]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": "1:2:3"}, "'1:2:3' is not one"),
        ({"subset": ""}, "'' is not one"),
        ({"subset": "a.txt"}, r"neither a \.npy file nor ranges"),
        ({"subset": "-1"}, "'-1' is not one"),
        ({"subset": "5:5"}, "range '5:5' .* is empty"),
        ({"subset": "9:5"}, "range '9:5' .* is empty"),
        ({"subset": "0:101"}, "index 100, but set test has the 100 examples 0 to 99"),
        ({"subset": "0:999999999999"}, "index 999999999998, but"),
        ({"subset": "none.npy"}, r"There is no file none\.npy"),
        ({"per_class": 0}, "at least 1 example per class"),
        ({"per_class": 21}, "Class 'a' has only 20 of the 21 examples"),
        ({"per_class": 1, "seed": -1}, "seed must not be negative"),
    ],
)
def test_what_cannot_be_chosen(arguments, message):
    with pytest.raises(DiffjaxError, match=message):
        select(SORTED, **arguments)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0.5]), "holds float64"),
        (np.array([True]), "holds bool"),
        (np.zeros((2, 2), int), r"of shape \(2, 2\)"),
        (np.array([], int), "holds no indices"),
        (np.array([-1, 5]), "index -1"),
        (np.array([5, 100]), "index 100"),
        (np.array([None]), "Python objects"),
    ],
)
def test_files_that_are_no_subsets(tmp_path, array, message):
    path = tmp_path / "subset.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(DiffjaxError, match=message):
        select(SORTED, path)


def test_damaged_files(tmp_path):
    path = tmp_path / "subset.npy"
    for content in (b"", b"numbers", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(DiffjaxError, match="cannot be read"):
            select(SORTED, path)
    with path.open("wb") as file:
        np.savez(file, np.arange(3))
    with pytest.raises(DiffjaxError, match="an archive"):
        select(SORTED, path)
