import numpy as np
import pytest
from scipy.stats import binomtest

from diffjax.report.paired import Z, mcnemar, paired_difference, standing


def pairs(both, only_one, only_other, neither):
    """Which images two runs have right, from the four cells of their table."""
    cells = ((1, 1, both), (1, 0, only_one), (0, 1, only_other), (0, 0, neither))
    rows = [(x, y) for x, y, n in cells for _ in range(n)]
    return np.array(rows, bool).reshape(-1, 2).T


def test_a_paired_difference_by_hand():
    right, first = pairs(3, 3, 2, 2)
    got = paired_difference(right, first)
    # 3 only the one, 2 only the other; half an image more in each cell of the table
    half = Z * np.sqrt((3.5 + 2.5) / 12**2 - (3.5 - 2.5) ** 2 / 12**3)
    assert got == pytest.approx((0.1, 1 / 12 - half, 1 / 12 + half))
    mirrored = paired_difference(first, right)
    assert mirrored == pytest.approx((-got.value, -got.high, -got.low))
    same = paired_difference(right, right)
    assert same.value == 0 and same.low < 0 < same.high
    with pytest.raises(ValueError, match="no images"):
        paired_difference(right[:0], right[:0])


def test_the_paired_interval_covers():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(1000):
        both = rng.random(60)
        right, first = both < 0.75, rng.permuted(both) < 0.6
        got = paired_difference(right, first)
        hits.append(got.low <= 0.15 <= got.high)
    assert np.mean(hits) > 0.93


def test_mcnemar_agrees_with_published_and_scipy_values():
    # Fagerland, Lydersen and Laake 2013, table 1: airway hyper-responsiveness of 21
    # children (Bentur et al. 2009); "exact conditional", printed as 0.070
    assert mcnemar(*pairs(1, 1, 7, 12)) == pytest.approx(0.0703125)
    for a, b in ((0, 1), (5, 0), (6, 0), (3, 9), (40, 61), (900, 1010)):
        expected = binomtest(a, a + b).pvalue
        assert mcnemar(*pairs(7, a, b, 2)) == pytest.approx(expected, rel=1e-9)
        assert mcnemar(*pairs(0, b, a, 0)) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(*pairs(4, 0, 0, 3)) == 1  # the same on every image
    assert mcnemar(*pairs(4, 8, 8, 3)) == 1


def test_what_the_test_tells_apart_the_interval_does_too():
    for a in range(1, 60):
        for b in range(a):
            right, first = pairs(100, a, b, 80)
            if mcnemar(right, first) < 0.05:
                assert paired_difference(right, first).low > 0


@pytest.mark.parametrize("n_runs", [2, 6])
def test_equal_runs_are_told_apart_as_rarely_as_promised(n_runs):
    rng = np.random.default_rng(0)
    names, told = [str(k) for k in range(n_runs)], []
    for _ in range(1000):
        right = rng.random((n_runs, 50)) < 0.7
        told.append(standing(names, right).winner is not None)
    assert np.mean(told) <= 0.05


def test_a_tie_has_no_winner():
    a, b = pairs(5, 3, 1, 1)
    got = standing(["b", "a"], np.array([b, a]))
    assert got.images == 10 and got.winner is None
    assert [(p.name, p.accuracy) for p in got.places] == [("a", 0.8), ("b", 0.6)]
    assert [p.name for p in got.tied] == ["b"]
    assert got.places[1].p == pytest.approx(0.625)


def test_a_winner_is_ahead_of_every_other():
    right = np.zeros((3, 30), bool)
    right[0, :25], right[1, :22], right[2, :5] = True, True, True
    got = standing(["a", "b", "c"], right)
    assert got.winner is None and [p.name for p in got.tied] == ["b"]
    assert standing(["a", "c"], right[[0, 2]]).winner == "a"
    none = standing(["a", "b"], right[:2, :0])
    assert none.images == 0 and none.places == () and none.winner is None
