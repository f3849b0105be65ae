"""Racing on tables of made errors; the truth is what all of a table says."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from saved_runs import named, tables, write_run

from diffjax.classify.record import Record
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import open_run, read_run
from diffjax.runs.rescoring import rescore
from diffjax.strategies import (
    parse_strategy,
    strategy_from_dict,
    strategy_to_dict,
    strategy_to_text,
    within,
)
from diffjax.strategies.base import Strategy, class_decision, run, run_on
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.orders import van_der_corput
from diffjax.strategies.racing import Racing

NOISES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "t(3)": lambda rng, shape: rng.standard_t(3, size=shape),
}


def race(strategy, table, groups=None):
    """The state at the end of a race on a table [C, T]."""

    def evaluate(state, request):
        return table[np.ix_(request.classes, state.samples.timesteps[request.samples])]

    return run(strategy, len(table), table.shape[1], evaluate, groups)


def made(rng, means, T, noise="normal"):
    """Errors around the classes' means, most of whose noise is shared by classes."""
    own = NOISES[noise](rng, (len(means), T))
    shared = 10 * rng.standard_normal(T)
    return (np.asarray(means)[:, None] + own + shared).astype(np.float32)


def best(table):
    return int(table.mean(axis=1, dtype=np.float64).argmin())


# --- The order of samples


@pytest.mark.parametrize("n", [1, 2, 3, 8, 50, 97, 129, 250, 256, 1000])
def test_every_prefix_of_the_order_is_nearly_even(n):
    order = van_der_corput(n)
    assert sorted(order.tolist()) == list(range(n))
    for k in range(1, n + 1):
        x = np.sort((order[:k] + 0.5) / n)
        i = np.arange(k)
        # how many more or fewer than its share lie in an interval [0, x)
        excess = k * max((x - i / k).max(), ((i + 1) / k - x).max())
        assert excess <= max(5 / 6, 0.5 + np.log2(k) / 2)


def test_prefixes_of_the_order_are_centred():
    for m in range(9):
        k = 2**m
        centre = (van_der_corput(512)[:k] + 0.5).mean() / 512
        assert abs(centre - 0.5) * k <= 1 / 6 + k / 1024


@pytest.mark.parametrize("n_trials", [1, 3])
def test_a_race_uses_the_cells_of_the_exhaustive_strategy(n_trials):
    def cells(strategy):
        samples = strategy.start(2, 1000).samples
        assert len(samples) == 50 * n_trials
        pairs = zip(samples.timesteps.tolist(), samples.noises.tolist(), strict=True)
        return set(pairs)

    settings = {"n_samples": 50, "n_trials": n_trials}
    assert cells(Racing(**settings)) == cells(Exhaustive(**settings))
    # every timestep is seen once before one is seen again
    timesteps = Racing(**settings).start(2, 1000).samples.timesteps
    assert len(set(timesteps[:50].tolist())) == 50


# --- Confidence


@pytest.mark.parametrize("n_races", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("means", "T", "confidence"),
    [
        ([0, 0], 96, 0.8),  # all luck: every drop is at risk
        ([0] * 8, 64, 0.8),
        (list(0.4 * np.arange(8)), 96, 0.8),
        ([0, 0, 0, *[2] * 20], 64, 0.9),  # the losers must leave the risk to the rest
    ],
)
def test_the_best_class_is_dropped_no_more_often_than_agreed(
    noise, means, T, confidence, n_races
):
    rng = np.random.default_rng(len(means))
    strategy = Racing(n_samples=T, confidence=confidence)
    wrong, said = 0, []
    for _ in range(n_races):
        table = made(rng, rng.permutation(means), T, noise)
        decision = strategy.decide(race(strategy, table))
        wrong += decision.pruned[best(table)]
        said.append(decision.confidence)
        assert decision.confidence >= confidence - 1e-12
    assert wrong <= (1 - confidence) * n_races + 1e-9
    doubted = sum(1 - each for each in said)
    assert wrong <= doubted + 3 * np.sqrt(doubted)


def test_looks_and_rivals_are_paid_for():
    """Without the share for looks and rivals, the same race errs too often."""

    class Reckless(Racing):
        def _standing(self, state):
            now = super()._standing(state)
            return replace(now, looks=1 / now.n_rivals)

    rng = np.random.default_rng(0)
    wrong = {Racing: 0, Reckless: 0}
    for _ in range(40):
        table = made(rng, [0] * 8, 64)
        for strategy in wrong:
            state = race(strategy(n_samples=64, confidence=0.9), table)
            wrong[strategy] += not state.living[best(table)]
    assert wrong[Racing] <= 4 < 10 < wrong[Reckless]


def test_a_certain_race_is_the_exhaustive_strategy():
    rng = np.random.default_rng(0)
    for n_trials in (1, 2):
        table = made(rng, [0] * 6, 60)

        def evaluate(state, request, table=table):
            samples = state.samples
            later = samples.noises[request.samples] % 7 / 10  # noises count as well
            t = samples.timesteps[request.samples]
            return table[np.ix_(request.classes, t)] * (1 + later)

        racing = Racing(n_samples=50, confidence=1 - 1e-15, n_trials=n_trials)
        exhaustive = Exhaustive(n_samples=50, n_trials=n_trials)
        one, other = (
            strategy.decide(run(strategy, 6, 60, evaluate))
            for strategy in (racing, exhaustive)
        )
        np.testing.assert_array_equal(one.ranking, other.ranking)
        np.testing.assert_allclose(one.mean_error, other.mean_error, rtol=1e-12)
        assert one.n_evaluations == other.n_evaluations
        assert not one.pruned.any()
        assert one.confidence == 1
        assert other.confidence is None


def test_confidence_rises_with_the_samples():
    rng = np.random.default_rng(1)
    strategy = Racing(n_samples=64, confidence=0.999)
    table = made(rng, [0, 0.7], 64)
    state = strategy.start(2, 64)
    said = []
    while (request := strategy.request(state)) is not None:
        errors = table[:, state.samples.timesteps[request.samples]]
        state = strategy.update(state, request, errors)
        said.append(strategy.decide(state).confidence)
    assert said[0] < 0.9 < 0.999 <= said[-1]
    assert np.corrcoef(said, np.arange(len(said)))[0, 1] > 0.6


# --- Evaluations


def test_evaluations_fall_with_the_gap():
    rng = np.random.default_rng(0)
    strategy = Racing(n_samples=128)
    noise = [made(rng, [0] * 5, 128) for _ in range(20)]
    mean = []
    for gap in (0.05, 0.2, 0.5, 1, 3, 30):
        first = np.array([0] + [gap] * 4, np.float32)[:, None]
        runs = [race(strategy, table + first) for table in noise]
        mean.append(np.mean([state.n_evaluations for state in runs]))
    assert (np.diff(mean) < 0).all()
    assert mean[0] > 0.6 * 5 * 128
    assert mean[-1] == 5 * strategy.floor


@pytest.mark.parametrize("n_classes", [1, 2, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {"n_samples": 50},
        {"n_samples": 50, "confidence": 0.3, "chunk": 1, "floor": 2},
        {"n_samples": 30, "chunk": 7, "floor": 11, "n_trials": 2},
        {"n_samples": 5},  # fewer than the floor
        {"n_samples": 1},
    ],
)
def test_invariants_of_a_race(settings, n_classes):
    strategy = Racing(**settings)
    assert isinstance(strategy, Strategy)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        table = made(rng, 0.3 * rng.standard_normal(n_classes), 100)
        state = strategy.start(n_classes, 100)
        budget = strategy.remaining(state)
        assert budget == n_classes * len(state.samples)
        done, alive, seen, allowed = 0, set(range(n_classes)), 0, budget
        while (request := strategy.request(state)) is not None:
            assert request.samples.tolist() == list(
                range(seen, seen + len(request.samples))
            )
            seen += len(request.samples)
            assert set(request.classes.tolist()) == alive
            timesteps = state.samples.timesteps[request.samples]
            errors = table[np.ix_(request.classes, timesteps)]
            state = strategy.update(state, request, errors)
            assert set(np.flatnonzero(state.living).tolist()) <= alive
            alive = set(np.flatnonzero(state.living).tolist())
            done += len(request.classes) * len(request.samples)
            assert done + strategy.remaining(state) <= allowed
            allowed = done + strategy.remaining(state)
        assert strategy.remaining(state) == 0
        decision = strategy.decide(state)
        assert decision.n_evaluations == done <= budget
        assert decision.winner in alive
        assert sorted(decision.ranking.tolist()) == list(range(n_classes))
        n = decision.n_samples[decision.ranking]
        assert (np.diff(n) <= 0).all()
        assert strategy.confidence <= decision.confidence + 1e-12 <= 1 + 1e-12
        assert set(n.tolist()) <= set(state.ends)
        steps = np.diff(state.ends)
        assert state.ends[0] == min(strategy.floor, len(state.samples))
        if len(steps):  # at least a chunk, and an eighth of what was seen
            expected = np.maximum(strategy.chunk, np.array(state.ends[:-1]) // 8)
            np.testing.assert_array_equal(steps[:-1], expected[:-1])
            assert 0 < steps[-1] <= expected[-1]


def test_the_order_of_classes_and_the_scale_of_errors_do_not_matter():
    rng = np.random.default_rng(2)
    strategy = Racing(n_samples=64, indifference=0.02)
    for _ in range(10):
        table = made(rng, 0.4 * rng.standard_normal(12), 64)
        order = rng.permutation(12)
        one = race(strategy, table)
        two = race(strategy, table[order])
        three = race(strategy, table / 1024)
        np.testing.assert_array_equal(one.dropped[order], two.dropped)
        np.testing.assert_array_equal(one.dropped, three.dropped)
        assert one.n_rounds == two.n_rounds == three.n_rounds
        assert one.risk == pytest.approx(two.risk) == pytest.approx(three.risk)


def test_a_thousand_classes():
    """The host's part must stay small beside a thousand classes' evaluations."""
    rng = np.random.default_rng(3)
    table = made(rng, 0.5 * rng.standard_normal(1000), 250)
    strategy = Racing(n_samples=250)
    state = race(strategy, table)
    assert strategy.decide(state).winner == best(table)
    assert state.n_evaluations < 250_000 / 8


def test_what_differs_smoothly_over_the_timesteps_is_no_noise():
    rng = np.random.default_rng(8)
    trend = np.array([0, 1])[:, None] * np.linspace(-2, 2.6, 200, dtype=np.float32)
    needed = {}
    for name, order in (("smooth", np.arange(200)), ("rough", rng.permutation(200))):
        noise = (made(rng, [0, 0], 200) / 10 for _ in range(20))
        states = [race(Racing(n_samples=200), each + trend[:, order]) for each in noise]
        assert all(state.living[0] for state in states)
        needed[name] = np.mean([state.n_evaluations for state in states])
    assert needed["smooth"] < 0.6 * needed["rough"]


# --- Ties


@pytest.mark.parametrize("rounding", [0, 1e-6])
def test_duplicates_do_not_burn_the_budget(rounding):
    rng = np.random.default_rng(4)
    table = made(rng, [0.0, 3.0, 4.0, 5.0], 200)[[1, 0, 2, 0, 3, 0]]
    table += rounding * rng.standard_normal(table.shape).astype(np.float32)
    strategy = Racing(n_samples=200)
    state = race(strategy, table)
    decision = strategy.decide(state)
    assert decision.n_evaluations <= 6 * 12
    assert decision.pruned.tolist() == [True, False, True, False, True, False]
    assert set(decision.ranking[:3].tolist()) == {1, 3, 5}
    assert rounding or decision.ranking[:3].tolist() == [1, 3, 5]
    assert decision.confidence >= strategy.confidence


@pytest.mark.parametrize("indifference", [0.0, 1e-4])
def test_only_ties(indifference):
    strategy = Racing(n_samples=200, indifference=indifference)
    table = np.repeat(np.random.default_rng(0).random((1, 200), np.float32), 9, 0)
    for errors in (table, np.full_like(table, 0.1)):
        decision = strategy.decide(race(strategy, errors))
        assert decision.ranking.tolist() == list(range(9))
        assert decision.n_evaluations == 9 * strategy.floor
        assert decision.confidence == 1


def test_constant_differences_are_certain():
    means = np.random.default_rng(0).permutation(17)
    table = np.repeat(means[:, None].astype(np.float32), 50, axis=1)
    decision = Racing(n_samples=50).decide(race(Racing(n_samples=50), table))
    np.testing.assert_array_equal(decision.ranking, np.argsort(means))
    assert decision.n_evaluations == 17 * Racing().floor
    assert decision.confidence == 1


def test_who_is_indifferent_stops_earlier():
    rng = np.random.default_rng(5)
    shared = 10 * rng.standard_normal(200)
    table = (shared + 0.05 * rng.standard_normal((2, 200))).astype(np.float32)
    needed = []
    for indifference in (0.0, 2e-3, 1e-2):
        strategy = Racing(n_samples=200, indifference=indifference)
        state = race(strategy, table)
        needed.append(state.n_evaluations)
        assert strategy.decide(state).confidence >= strategy.confidence
        assert state.living.all()
    assert needed[0] > needed[1] > needed[2]


def test_prompts_of_one_class_are_not_told_apart():
    rng = np.random.default_rng(6)
    means = np.array([0, 0, 0, 4, 4, 4])
    table = made(rng, means, 200)
    strategy = Racing(n_samples=200)
    groups = np.array([1, 1, 1, 0, 0, 2])
    apart, together = race(strategy, table), race(strategy, table, groups)
    assert together.n_evaluations <= 6 * 12 < apart.n_evaluations
    assert together.living.tolist() == [True] * 3 + [False] * 3
    decision = class_decision(strategy.decide(together), groups)
    assert decision.winner == 1
    assert decision.confidence >= strategy.confidence


# --- A budget


def test_a_budget_stops_a_race_which_says_how_sure_it_was():
    rng = np.random.default_rng(9)
    for _ in range(5):
        table = made(rng, 0.3 * rng.standard_normal(8), 100)
        whole = Racing(n_samples=100)
        needed = whole.decide(race(whole, table)).n_evaluations
        said = []
        for budget in (32, 60, 200, needed, 10**6):
            strategy = within(whole, budget)
            state = race(strategy, table)
            decision = strategy.decide(state)
            assert decision.n_evaluations <= min(budget, needed)
            assert strategy.remaining(state) == 0
            said.append(decision.confidence)
            # the leader by the estimate wins, whoever is still living
            living = np.flatnonzero(state.living)
            assert decision.winner in living
            assert set(decision.ranking[: len(living)].tolist()) == set(living.tolist())
        assert said[0] < 0.9 <= said[-2] == said[-1]
        # what a budget would have left is the unlimited race's beginning
        assert decision.n_evaluations == needed


def test_a_budget_is_of_gradients_too_and_holds_one_look():
    table = made(np.random.default_rng(0), np.zeros(6), 64)
    strategy = Racing(n_samples=64, budget=60)

    def errors(state, request):
        return table[np.ix_(request.classes, state.samples.timesteps[request.samples])]

    state = replace(strategy.start(6, 64), n_gradients=8)
    assert 24 + 24 <= run_on(strategy, state, errors).n_evaluations <= 60
    with pytest.raises(DiffjaxError, match=r"23 evaluations .* 6 classes.* 24\."):
        race(Racing(n_samples=64, budget=23), table)
    with pytest.raises(DiffjaxError, match="A budget stops a race; exhaustive"):
        within(Exhaustive(n_samples=8), 100)
    with pytest.raises(DiffjaxError, match="at least 1 evaluation"):
        within(strategy, 0)


# --- Records and runs


def record(strategy, table):
    state = race(strategy, table)
    return Record(
        pixels=np.zeros((4, 4, 3), np.float32),
        prompts=named("abcd"),
        samples=state.samples,
        table=state.table,
        prompt_decision=strategy.decide(state),
        temperature=1.0,
        seconds=1.0,
    )


def test_a_record_says_how_sure_it_is():
    table = made(np.random.default_rng(7), [3, 0, 3, 3], 100)
    answer = record(Racing(n_samples=100), table).as_dict()
    json.dumps(answer)
    assert 0.9 <= answer["confidence"] <= 1
    # timesteps that the race did not need are no part of the answer
    assert len(answer["timesteps"]) < 30
    assert all(len(e["by_timestep"]) < 30 for e in answer["errors"])
    assert None not in answer["errors"][1]["by_timestep"]
    exhaustive = record(Exhaustive(n_samples=100), table).as_dict()
    assert exhaustive["confidence"] is None
    assert len(exhaustive["timesteps"]) == 100


def test_rows_of_a_run_say_how_sure_it_is(tmp_path):
    errors, labels = tables(20, 5, 64)
    exhaustive = write_run(tmp_path / "a", errors, labels)
    assert exhaustive.rows["confidence"].to_pylist() == [None] * 20
    strategy = Racing(n_samples=64)
    raced = write_run(tmp_path / "b", errors, labels, strategy=strategy)
    assert min(raced.rows["confidence"].to_pylist()) >= np.float32(0.9)
    # replayed on the exhaustive run, the race is the same
    replayed = rescore(exhaustive, strategy=strategy).good
    for column in ("prediction", "evaluations"):
        assert [row[column] for row in replayed] == raced.rows[column].to_pylist()


def test_runs_of_before_are_read(tmp_path):
    errors, labels = tables(4, 3, 16)
    write_run(tmp_path / "run", errors, labels)
    [part] = (tmp_path / "run" / "parts").glob("*.parquet")
    before = pq.read_table(part).drop_columns(["confidence"])
    part.unlink()
    pq.write_table(before, part.with_name("1-0123abcd.parquet"))
    rows = read_run(tmp_path / "run").rows
    assert rows["confidence"].to_pylist() == [None] * 4
    assert rows["label"].to_pylist() == labels.tolist()


def test_runs_that_were_raced_by_the_former_rule_are_read_but_do_not_go_on(tmp_path):
    errors, labels = tables(4, 3, 16)
    now = strategy_to_dict(Racing(n_samples=16))
    assert now.pop("estimate") == "interpolated"
    before = now | {"floor": 8, "chunk": 4}
    header = {"experiment": {"strategy": before}}
    made = write_run(tmp_path / "run", errors, labels, header=header)
    # what its report calls it
    text = strategy_to_text(strategy_from_dict(made.header["experiment"]["strategy"]))
    assert text == "racing:n_samples=16:floor=8:chunk=4"
    header = deepcopy(made.header)
    header["experiment"]["strategy"] = now | {"estimate": "interpolated"}
    with pytest.raises(DiffjaxError, match="Racing estimates and drops otherwise"):
        open_run(tmp_path / "run", header, made.prompts, save_errors=True)
    rescored = rescore(read_run(tmp_path / "run"), strategy=Racing(n_samples=16))
    assert rescored.settings["strategy"]["estimate"] == "interpolated"


# --- Settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_samples": 0}, ["n_samples", "0"]),
        ({"confidence": 1.0}, ["confidence", "1", "exhaustive"]),
        ({"confidence": 0.0}, ["confidence", "0"]),
        ({"confidence": float("nan")}, ["confidence", "nan"]),
        ({"floor": 1}, ["floor", "2", "1"]),
        ({"chunk": 0}, ["chunk", "0"]),
        ({"budget": -1}, ["budget", "-1", "0 for none"]),
        ({"n_trials": 0}, ["n_trials", "0"]),
        ({"indifference": -1.0}, ["indifference", "-1"]),
        ({"indifference": float("inf")}, ["indifference", "inf"]),
    ],
)
def test_absurd_races_are_refused(settings, words):
    with pytest.raises(DiffjaxError) as error:
        Racing(**settings)
    for word in words:
        assert word in str(error.value)


def test_more_timesteps_than_the_schedule_has_are_refused():
    with pytest.raises(DiffjaxError, match=r"251 .* 250.* n_trials"):
        Racing(n_samples=251).start(3, 250)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("racing", Racing()),
        ("racing:confidence=0.99", Racing(confidence=0.99)),
        (
            "racing:n_samples=50:floor=4:chunk=2:indifference=0:n_trials=2",
            Racing(n_samples=50, floor=4, chunk=2, indifference=0.0, n_trials=2),
        ),
    ],
)
def test_races_as_text_and_json(text, expected):
    strategy = parse_strategy(text)
    assert strategy == expected
    assert parse_strategy(strategy_to_text(strategy)) == strategy
    assert strategy_from_dict(json.loads(json.dumps(strategy_to_dict(strategy)))) == (
        strategy
    )
    assert strategy_to_text(Racing()) == "racing"
