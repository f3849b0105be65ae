import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from diffjax.choices import STAGES, STRATEGY
from diffjax.errors import DiffjaxError
from diffjax.strategies import (
    STRATEGIES,
    parse_strategy,
    strategy_from_dict,
    strategy_to_dict,
    strategy_to_text,
)
from diffjax.strategies.base import (
    Decision,
    ErrorTable,
    Request,
    Samples,
    Strategy,
    best_prompts,
    class_decision,
    drop,
    rank,
    run,
)
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.orders import even_timesteps
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged, nested, official

T = 1000
KEEP4, SAMPLES4 = (20, 10, 5, 1), (20, 50, 100, 500)
# classes, to_keep, n_samples, evaluations in the official and in the nested order
AUTHORS = {
    "food": (101, KEEP4, SAMPLES4, 5570, 101 * 20 + 20 * 30 + 10 * 50 + 5 * 400),
    "cifar10": (10, (5, 1), (50, 500), 2750, 10 * 50 + 5 * 450),
    "aircraft": (100, KEEP4, SAMPLES4, 5550, 100 * 20 + 20 * 30 + 10 * 50 + 5 * 400),
    "pets": (37, (5, 1), (25, 250), 2050, 37 * 25 + 5 * 225),
    "flowers": (102, KEEP4, SAMPLES4, 5590, 102 * 20 + 20 * 30 + 10 * 50 + 5 * 400),
    "stl10": (10, (5, 1), (100, 500), 3000, 10 * 100 + 5 * 400),
    "imagenet": (1000, (500, 50, 10, 1), (50, 100, 500, 1000), 124_500, 100_000),
    "objectnet": (
        113,
        (25, 10, 5, 1),
        (50, 100, 500, 1000),
        14_400,
        113 * 50 + 25 * 50 + 10 * 400 + 5 * 500,
    ),
}
SETTINGS = {name: row[:3] for name, row in AUTHORS.items()}


def staged(keep, n, order="official", n_trials=1):
    return Staged(to_keep=keep, n_samples=n, order=order, n_trials=n_trials)


def synthetic(seed, n_classes, difficulty=1.0):
    """A random error for every (class, timestep, noise), mostly shared by classes."""
    rng = np.random.default_rng(seed)
    of_class = rng.standard_normal(n_classes) * 0.1

    def evaluate(state, request):
        samples, columns = state.samples, []
        for s in request.samples:
            cell = np.random.default_rng(
                [seed, int(samples.timesteps[s]), int(samples.noises[s])]
            )
            shared = 3 * cell.random()
            columns.append(shared + difficulty * cell.standard_normal(n_classes))
        table = np.stack(columns, axis=1) + of_class[:, None]
        return table[request.classes]

    return evaluate


def recorded(evaluate):
    requests = []

    def record(state, request):
        requests.append(request)
        return evaluate(state, request)

    return record, requests


def strategies():
    return [
        Exhaustive(n_samples=40),
        Exhaustive(n_samples=7, n_trials=3),
        *(
            staged(keep, n, order, n_trials)
            for order in ("official", "nested")
            for n_trials in (1, 2)
            for keep, n in [
                ((1,), (12,)),
                ((5, 1), (10, 40)),
                ((8, 3, 1), (7, 20, 50)),
                ((4, 3, 2, 1), (10, 11, 13, 14)),
                ((6, 4, 3, 1), (2, 3, 4, 5)),
            ]
        ),
    ]


ALL = strategies()
IDS = [json.dumps(strategy_to_dict(s)) for s in ALL]


# --- The authors' settings


@pytest.mark.parametrize("name", AUTHORS)
@pytest.mark.parametrize("order", ["official", "nested"])
def test_evaluation_counts_of_the_authors_settings(name, order):
    n_classes, keep, n, in_official, in_nested = AUTHORS[name]
    expected = in_official if order == "official" else in_nested
    strategy = staged(keep, n, order)
    assert strategy.remaining(strategy.start(n_classes, T)) == expected
    record, requests = recorded(lambda _, r: np.ones((len(r.classes), len(r.samples))))
    state = run(strategy, n_classes, T, record)
    assert sum(len(r.classes) * len(r.samples) for r in requests) == expected
    assert strategy.decide(state).n_evaluations == expected
    assert strategy.remaining(state) == 0


def test_n_trials_multiply_evaluations():
    strategy = staged((5, 1), (25, 250), n_trials=3)
    assert strategy.remaining(strategy.start(37, T)) == 3 * 2050


def test_official_timesteps_by_hand():
    # M = 5, T = 23: step 4 from 2; two of five start at 5 // 2 // 2 = 1, every 2nd.
    first, second = official((2, 5), 23)
    assert first.tolist() == [6, 14]
    assert second.tolist() == [2, 10, 18]
    # M = 500: odd timesteps. 20 of them from 12, every 25th; 50 from 5, every 10th;
    # 100 from 2, every 5th, which meet the 20 but not the 50.
    stages = official(SAMPLES4, T)
    assert stages[0].tolist() == [2 * (12 + 25 * i) + 1 for i in range(20)]
    assert stages[1].tolist() == [2 * (5 + 10 * i) + 1 for i in range(50)]
    assert [len(s) for s in stages] == [20, 50, 80, 350]


def test_official_noises_count_over_all_stages():
    state = staged((5, 1), (2, 5), n_trials=3).start(9, 23)
    assert state.samples.timesteps.tolist() == [
        t for t in (6, 14, 2, 10, 18) for _ in range(3)
    ]
    assert state.samples.noises.tolist() == list(range(15))
    assert state.ends == (6, 15)


def test_staged_follows_algorithm_2_by_hand():
    # Stage 1 sees timesteps 6, 14; class 3 is worst there and must go, though it is
    # best by far on the others. Then class 1 beats 0 over ALL five, not the last 3.
    errors = {6: [5, 1, 3, 6], 14: [5, 1, 3, 6], 2: [1, 3, 9, 0], 10: [1, 3, 9, 0]}
    errors[18] = [1, 3, 9, 0]

    def evaluate(state, request):
        t = state.samples.timesteps
        table = np.array([errors[int(t[s])] for s in request.samples])
        return table.T[request.classes].astype(float)

    strategy = staged((3, 1), (2, 5))
    state = run(strategy, 4, 23, evaluate)
    decision = strategy.decide(state)
    assert decision.ranking.tolist() == [1, 0, 2, 3]
    np.testing.assert_allclose(decision.mean_error, [13 / 5, 11 / 5, 33 / 5, 6])
    assert decision.n_samples.tolist() == [5, 5, 5, 2]
    assert decision.pruned.tolist() == [False, False, False, True]
    assert decision.winner == 1


def test_an_official_stage_without_new_timesteps_still_drops():
    # Of a grid of 5: {1, 3}, {0, 1, 2}, {0, 1, 2, 3}, all. The third adds nothing.
    assert [len(s) for s in official((2, 3, 4, 5), 5)] == [2, 2, 0, 1]
    strategy = staged((5, 4, 2, 1), (2, 3, 4, 5))
    record, requests = recorded(synthetic(0, 6))
    state = run(strategy, 6, 5, record)
    assert [len(r.classes) for r in requests] == [6, 5, 2]
    assert np.sort(strategy.decide(state).n_samples).tolist() == [2, 4, 4, 4, 5, 5]
    # The last stage may be empty as well; the stage before then decides.
    strategy = staged((5, 2, 1), (2, 3, 4))
    record, requests = recorded(synthetic(0, 6))
    decision = strategy.decide(run(strategy, 6, 4, record))
    assert [len(r.classes) for r in requests] == [6, 5]
    assert decision.pruned.sum() == 4


# --- Orders of samples


@pytest.mark.parametrize("n_timesteps", [64, 1000, 997])
def test_even_timesteps_are_even_and_centred(n_timesteps):
    for n in (1, 2, 7, 50, 63, 64):
        t = even_timesteps(n, n_timesteps)
        assert len(set(t.tolist())) == n
        gaps = np.diff(np.concatenate([[-t[0] - 1], t, [2 * n_timesteps - t[-1] - 1]]))
        assert gaps.max() <= np.ceil(n_timesteps / n) + 1
        assert abs(np.mean(t) - (n_timesteps - 1) / 2) <= 1


@pytest.mark.parametrize("name", SETTINGS)
def test_nested_stages_contain_one_another_and_stay_even(name):
    n_samples = SETTINGS[name][2]
    stages = nested(n_samples, T)
    for k, n in enumerate(n_samples):
        t = np.sort(np.concatenate(stages[: k + 1]))
        assert len(t) == len(set(t.tolist())) == n
        # In parts of an even gap; the gaps at the edges are mirrored there.
        gaps = np.diff(np.concatenate([[-t[0] - 1], t, [2 * T - t[-1] - 1]]))
        assert (gaps * n / T).max() <= 1.6
        assert (gaps * n / T).min() >= 0.4
        assert n == 1 or (np.diff(t) * n / T).max() <= 1.2
    final = np.sort(np.concatenate(stages))
    np.testing.assert_array_equal(final, even_timesteps(n_samples[-1], T))


def test_nested_stages_are_even_for_any_growing_stages():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n_samples = [int(rng.integers(1, 5))]
        while n_samples[-1] < 300 and len(n_samples) < 5:
            n_samples.append(int(n_samples[-1] * rng.uniform(2, 6)) + 1)
        stages = nested(tuple(n_samples), 2000)
        for k, n in enumerate(n_samples):
            t = np.sort(np.concatenate(stages[: k + 1]))
            assert len(set(t.tolist())) == n
            gaps = np.diff(np.concatenate([[-t[0] - 1], t, [4000 - t[-1] - 1]]))
            assert gaps.max() <= 2.5 * 2000 / n


@pytest.mark.parametrize("n_samples", [(25, 250), (50, 500), (100, 500)])
def test_orders_agree_where_the_official_grids_are_nested(n_samples):
    for a, b in zip(official(n_samples, T), nested(n_samples, T), strict=True):
        np.testing.assert_array_equal(a, b)


# --- Properties of every strategy


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
@pytest.mark.parametrize("n_classes", [1, 2, 5, 23])
def test_invariants_of_a_run(strategy, n_classes):
    for seed in range(3):
        evaluate = synthetic(seed, n_classes)
        state = strategy.start(n_classes, T)
        promised = strategy.remaining(state)
        cells, alive = set(), set(range(n_classes))
        while (request := strategy.request(state)) is not None:
            assert len(request.samples) > 0
            new = {(c, s) for c in request.classes for s in request.samples}
            assert not cells & new  # no cell twice
            cells |= new
            assert set(request.classes.tolist()) <= alive  # the dropped stay out
            errors = evaluate(state, request)
            state = strategy.update(state, request, errors)
            alive = set(np.flatnonzero(state.living).tolist())
            assert len(cells) + strategy.remaining(state) == promised
        decision = strategy.decide(state)
        assert decision.n_evaluations == state.n_evaluations == len(cells) == promised
        assert sorted(decision.ranking.tolist()) == list(range(n_classes))
        assert decision.winner in alive
        assert not decision.pruned[decision.winner]
        # Samples seen never rise along the ranking, and means rise among equals.
        n = decision.n_samples[decision.ranking]
        mean = decision.mean_error[decision.ranking]
        assert (np.diff(n) <= 0).all()
        assert (np.diff(mean)[np.diff(n) == 0] >= 0).all()
        # Timesteps are in range and every (timestep, noise) pair is its own.
        samples = state.samples
        assert samples.timesteps.min() >= 0 and samples.timesteps.max() < T
        assert samples.noises.tolist() == list(range(len(samples)))
        per_timestep = np.unique(samples.timesteps, return_counts=True)[1]
        assert set(per_timestep.tolist()) == {strategy.n_trials}
        # The winner saw all there was.
        assert decision.n_samples[decision.winner] == len(samples)


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
def test_constant_errors_give_the_exhaustive_ranking(strategy):
    for seed in range(5):
        errors = np.random.default_rng(seed).permutation(17) / 17
        state = run(
            strategy,
            17,
            T,
            lambda _, r, e=errors: np.repeat(e[r.classes, None], len(r.samples), 1),
        )
        decision = strategy.decide(state)
        np.testing.assert_array_equal(decision.ranking, np.argsort(errors))
        np.testing.assert_allclose(decision.mean_error, errors, rtol=1e-6)


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
def test_the_order_of_the_classes_does_not_matter(strategy):
    n_classes = 19
    for seed in range(3):
        evaluate = synthetic(seed, n_classes)
        permutation = np.random.default_rng(seed + 100).permutation(n_classes)

        def permuted(state, request, evaluate=evaluate, permutation=permutation):
            everyone = replace(request, classes=np.arange(n_classes))
            return evaluate(state, everyone)[permutation[request.classes]]

        one = strategy.decide(run(strategy, n_classes, T, evaluate))
        two = strategy.decide(run(strategy, n_classes, T, permuted))
        np.testing.assert_array_equal(one.ranking, permutation[two.ranking])
        np.testing.assert_array_equal(one.pruned[permutation], two.pruned)
        np.testing.assert_array_equal(one.n_samples[permutation], two.n_samples)


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
def test_ties_go_to_the_smaller_index(strategy):
    state = run(
        strategy, 11, T, lambda _, r: np.full((len(r.classes), len(r.samples)), 0.1)
    )
    assert strategy.decide(state).ranking.tolist() == list(range(11))


@pytest.mark.parametrize("strategy", ALL[2:], ids=IDS[2:])
def test_staged_is_exhaustive_when_nobody_can_be_dropped(strategy):
    lenient = replace(strategy, to_keep=(*range(60, 61 - len(strategy.to_keep), -1), 1))
    evaluate = synthetic(3, 23)
    state = run(lenient, 23, T, evaluate)
    everything = Request(
        classes=np.arange(23), samples=np.arange(len(state.samples), dtype=int)
    )
    mean = evaluate(state, everything).astype(np.float32).mean(1, np.float64)
    np.testing.assert_allclose(lenient.decide(state).mean_error, mean)
    np.testing.assert_array_equal(lenient.decide(state).ranking, np.argsort(mean))
    assert not lenient.decide(state).pruned.any()


def test_exhaustive_ranks_by_the_mean_over_its_grid():
    strategy = Exhaustive(n_samples=250)
    evaluate = synthetic(1, 10)
    state = run(strategy, 10, T, evaluate)
    assert state.samples.timesteps.tolist() == list(range(2, 1000, 4))
    request = Request(classes=np.arange(10), samples=np.arange(250))
    mean = evaluate(state, request).mean(axis=1)
    np.testing.assert_array_equal(strategy.decide(state).ranking, np.argsort(mean))


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
def test_strategies_satisfy_the_protocol(strategy):
    assert isinstance(strategy, Strategy)


# --- Errors that are no numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_errors_that_are_not_finite_are_reported(value):
    strategy = staged((2, 1), (4, 10))
    state = strategy.start(3, T)
    request = strategy.request(state)
    errors = np.ones((3, 4))
    errors[2, 1] = value
    with pytest.raises(DiffjaxError) as error:
        strategy.update(state, request, errors)
    t = state.samples.timesteps[1]
    for word in ("class 2", f"timestep {t}", str(value), "bfloat16", "float16"):
        assert word in str(error.value)
    assert state.n_evaluations == 0  # nothing of the bad request was kept


# --- The table


def test_the_table_refuses_wrong_shapes_and_second_writes():
    table = ErrorTable(np.full((3, 4), np.nan, np.float32))
    request = Request(classes=np.array([0, 2]), samples=np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="shape"):
        table.write(request, np.ones((1, 3)))
    table.write(request, np.ones((2, 3)))
    again = Request(classes=np.array([2]), samples=np.array([0, 3]))
    with pytest.raises(ValueError, match="before"):
        table.write(again, np.ones((1, 2)))
    assert table.n_samples().tolist() == [3, 0, 3]


@pytest.mark.filterwarnings("error")
def test_means_and_paired_differences_use_what_was_seen():
    nan = np.nan
    table = ErrorTable(
        np.array([[1, 2, 3, 4], [3, 3, 6, nan], [nan, 7, nan, nan], [nan] * 4], "f4")
    )
    np.testing.assert_array_equal(table.mean(), [2.5, 4, 7, nan])
    paired = table.difference(0)
    np.testing.assert_array_equal(paired.n_samples, [4, 3, 1, 0])
    np.testing.assert_allclose(paired.mean, [0, 2, 5, nan])
    # Differences of class 1: 2, 1, 3, so s² = 1 and the mean's error is sqrt(1/3).
    np.testing.assert_allclose(
        paired.standard_error, [0, np.sqrt(1 / 3), np.inf, np.inf]
    )


def test_paired_differences_are_much_steadier_than_errors():
    strategy = Exhaustive(n_samples=100)
    state = run(strategy, 6, T, synthetic(2, 6, difficulty=0.05))
    leader = strategy.decide(state).winner
    paired = state.table.difference(leader)
    alone = state.table.errors.std(axis=1, ddof=1) / np.sqrt(100)
    others = np.arange(6) != leader
    assert (paired.standard_error[others] < 0.2 * alone[others]).all()
    errors = state.table.errors.astype(np.float64)
    d = errors - errors[leader]
    np.testing.assert_allclose(paired.mean, d.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(
        paired.standard_error, d.std(axis=1, ddof=1) / 10, atol=1e-12
    )


# --- What later strategies need


class Planned(Strategy):
    """A strategy that is nothing but its plan."""

    def __init__(self, *plan):
        self.planned = plan

    def plan(self, n_timesteps):
        return self.planned


def test_a_shortlist_before_the_first_round_ranks_last():
    samples = Samples(timesteps=np.arange(4), noises=np.arange(4))
    strategy = Planned(samples, (2, 4))
    state = drop(strategy.start(5, 4), np.array([0, 3]))
    for losers in ([2], [4]):
        request = strategy.request(state)
        means = np.array([0.0, 2, 3, 0, 1])[request.classes]
        errors = np.repeat(means[:, None], len(request.samples), axis=1)
        state = drop(strategy.update(state, request, errors), np.array(losers))
    assert strategy.request(state) is None
    decision = rank(state)
    assert decision.ranking.tolist() == [1, 4, 2, 0, 3]
    assert decision.n_samples.tolist() == [0, 4, 2, 0, 4]
    assert decision.pruned.tolist() == [True, False, True, True, True]


def test_dropping_again_does_not_improve_a_rank():
    samples = Samples(timesteps=np.arange(2), noises=np.arange(2))
    strategy = Planned(samples, (1, 2))
    state = drop(strategy.start(3, 2), np.array([0]))
    state = strategy.update(state, strategy.request(state), np.ones((2, 1)))
    state = drop(state, np.array([0, 2]))
    assert rank(state).ranking.tolist() == [1, 2, 0]


def test_deciding_on_nothing_is_refused():
    strategy = Exhaustive(n_samples=3)
    with pytest.raises(ValueError, match="nothing"):
        strategy.decide(strategy.start(3, T))


# --- Several prompts per class


def prompt_decision():
    return Decision(
        ranking=np.array([4, 1, 0, 3, 2]),
        mean_error=np.array([0.3, 0.2, 0.9, 0.5, 0.1]),
        n_samples=np.array([9, 9, 2, 2, 9]),
        pruned=np.array([False, False, True, True, False]),
        n_evaluations=31,
    )


def test_prompts_compete_and_the_best_represents_its_class():
    classidx = np.array([1, 1, 0, 2, 2])
    np.testing.assert_array_equal(best_prompts(prompt_decision(), classidx), [2, 1, 4])
    decision = class_decision(prompt_decision(), classidx)
    assert decision.ranking.tolist() == [2, 1, 0]
    assert decision.mean_error.tolist() == [0.9, 0.2, 0.1]
    assert decision.n_samples.tolist() == [2, 9, 9]
    assert decision.pruned.tolist() == [True, False, False]
    assert decision.n_evaluations == 31


def test_one_prompt_per_class_changes_only_the_names():
    decision = prompt_decision()
    classidx = np.array([3, 0, 4, 2, 1])
    reduced = class_decision(decision, classidx)
    np.testing.assert_array_equal(reduced.ranking, classidx[decision.ranking])
    np.testing.assert_array_equal(reduced.mean_error[classidx], decision.mean_error)


def test_to_keep_counts_prompts():
    # The two best prompts belong to class 0; keeping two prompts leaves one class.
    means = np.array([0.1, 0.2, 0.3, 0.4])
    strategy = staged((2, 1), (5, 10))
    state = run(
        strategy,
        4,
        T,
        lambda s, r: np.repeat(means[r.classes, None], len(r.samples), 1),
    )
    decision = class_decision(strategy.decide(state), np.array([0, 0, 1, 1]))
    assert decision.winner == 0
    assert decision.pruned.tolist() == [False, True]


@pytest.mark.parametrize(
    ("classidx", "word"),
    [
        ([0, 1, 2], "3 prompts"),
        ([0, 1, 1, 3, 3], "class 2 has no prompt"),
        ([0, 1, 1, -1, 0], "negative"),
    ],
)
def test_a_wrong_classidx_is_named(classidx, word):
    with pytest.raises(DiffjaxError, match=word):
        class_decision(prompt_decision(), np.array(classidx))


# --- Settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"to_keep": (5, 1), "n_samples": (10,)}, ["2 stages", "5,1", "1 10"]),
        ({"to_keep": (), "n_samples": (10,)}, ["0 stages", "empty"]),
        ({"to_keep": (5, 2), "n_samples": (10, 20)}, ["end in 1", "5,2"]),
        ({"to_keep": (5, 5, 1), "n_samples": (1, 2, 3)}, ["fall", "5,5,1"]),
        ({"to_keep": (1, 5), "n_samples": (10, 20)}, ["to_keep", "1,5"]),
        ({"to_keep": (5, 1), "n_samples": (20, 20)}, ["rise", "20,20"]),
        ({"to_keep": (5, 1), "n_samples": (0, 20)}, ["positive", "0,20"]),
        ({"to_keep": (1,), "n_samples": (9,), "order": "odd"}, ["odd", "nested"]),
        ({"to_keep": (1,), "n_samples": (9,), "n_trials": 0}, ["n_trials", "0"]),
    ],
)
def test_absurd_stages_are_refused(settings, words):
    with pytest.raises(DiffjaxError) as error:
        Staged(**settings)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "strategy",
    [
        Exhaustive(n_samples=1001),
        staged((2, 1), (10, 1001)),
        staged((2, 1), (10, 1001), "nested"),
    ],
)
def test_more_timesteps_than_the_schedule_has_are_refused(strategy):
    with pytest.raises(DiffjaxError, match=r"1001 .* 1000.* n_trials"):
        strategy.start(3, T)


def test_exhaustive_needs_samples_and_a_run_needs_classes():
    with pytest.raises(DiffjaxError, match="n_samples"):
        Exhaustive(n_samples=0)
    with pytest.raises(DiffjaxError, match="at least one"):
        Exhaustive(n_samples=1).start(0, T)


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
def test_strategies_survive_json(strategy):
    record = json.loads(json.dumps(strategy_to_dict(strategy)))
    assert strategy_from_dict(record) == strategy
    assert record["name"] in STRATEGIES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exhaustive:n_samples=250", Exhaustive(n_samples=250)),
        ("exhaustive:n_trials=2:n_samples=9", Exhaustive(n_samples=9, n_trials=2)),
        ("staged:to_keep=5,1:n_samples=25,250", staged((5, 1), (25, 250))),
        (
            " staged:to_keep=1:n_samples=50:order=nested:n_trials=3",
            staged((1,), (50,), "nested", 3),
        ),
    ],
)
def test_strategies_from_text(text, expected):
    assert parse_strategy(text) == expected


@pytest.mark.parametrize("strategy", ALL, ids=IDS)
def test_text_and_back(strategy):
    assert parse_strategy(strategy_to_text(strategy)) == strategy


def test_a_name_alone_is_a_strategy():
    assert parse_strategy("exhaustive") == Exhaustive(n_samples=250)
    assert parse_strategy("racing") == parse_strategy(STRATEGY) == Racing()
    assert strategy_to_text(parse_strategy("staged")) == "staged"


@pytest.mark.parametrize(
    ("n", "like"),
    [(2, 10), (50, 10), (51, 100), (500, 100), (501, 1000), (21_000, 1000)],
)
def test_stages_are_the_papers_for_about_as_many_classes(n, like):
    """By its states, a strategy that waits for their number is the one that says it."""
    to_keep, n_samples = STAGES[like]
    bare, said = Staged(), Staged(to_keep=to_keep, n_samples=n_samples)
    assert bare.of(n) == said and said.of(n) is said
    assert bare.remaining(bare.start(n, T)) == said.remaining(said.start(n, T))
    if n <= 50:
        states = [run(each, n, T, synthetic(n, n)) for each in (bare, said)]
        np.testing.assert_array_equal(*[each.table.errors for each in states])
        np.testing.assert_array_equal(*[each.dropped for each in states])
    with pytest.raises(DiffjaxError, match="how many classes"):
        bare.plan(T)


def test_text_leaves_defaults_out():
    text = "staged:to_keep=5,1:n_samples=25,250"
    assert strategy_to_text(parse_strategy(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no strategy ''", "exhaustive", "staged"]),
        ("racing2", ["'racing2'", "exhaustive", "staged"]),
        ("staged:to_keep=5,1", ["to_keep has 2 stages 5,1 and n_samples 0 empty"]),
        ("exhaustive:250", ["'250'", "setting=value", "staged:to_keep=5,1"]),
        ("exhaustive:n_samples=a", ["n_samples", "a whole number", "'a'"]),
        ("exhaustive:n_samples=2.5", ["n_samples", "a whole number", "2.5"]),
        ("exhaustive:n_samples=25,250", ["n_samples", "a whole number", "[25, 250]"]),
        ("exhaustive:n_samples=", ["n_samples", "''"]),
        ("exhaustive:n_samples=5:n_samples=6", ["twice"]),
        ("exhaustive:samples=5", ["no setting 'samples'", "n_trials"]),
        ("exhaustive:name=staged", ["twice"]),
        ("staged:to_keep=5,x:n_samples=5,9", ["to_keep", "[5, 'x']"]),
        ("staged:to_keep=5,1:n_samples=9,5", ["rise", "9,5"]),
        ("staged:to_keep=5,1:n_samples=5,9:order=1", ["order", "a word"]),
    ],
)
def test_text_that_is_not_understood_is_explained(text, words):
    with pytest.raises(DiffjaxError) as error:
        parse_strategy(text)
    for word in words:
        assert word in str(error.value)


def test_true_is_not_a_number():
    with pytest.raises(DiffjaxError, match="n_samples"):
        strategy_from_dict({"name": "exhaustive", "n_samples": True})


def test_strategies_do_not_import_jax():
    code = "import sys, diffjax.strategies; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
