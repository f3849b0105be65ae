"""A moment of a race in HTML: true, escaped, and small however many classes."""

import re
from dataclasses import replace

import numpy as np
import pytest
from test_plots import LABELS, record

from diffjax.classify.race import Moment
from diffjax.data.prompts import Prompts
from diffjax.report.lanes import (
    LANES,
    flops_text,
    lanes,
    race_html,
    style,
    table_html,
    words_html,
)
from diffjax.strategies.base import rank, run_on
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import restrict

ODD = ('<img src=x onerror="alert(1)">', "</style><script>", "a'b\"c", "Ü{{1}}${2}", "")


def moment(record, done=True):
    n = record.evaluations
    return Moment(record=record, looks=1, evaluations=n, most=n, done=done)


def named(known, labels):
    prompts = Prompts(
        prompts=tuple(labels),
        classidx=tuple(range(len(labels))),
        class_names=tuple(labels),
    )
    return replace(known, prompts=prompts)


def test_lanes_are_in_the_order_of_classes_with_their_places():
    known = record("racing:n_samples=60:confidence=0.9")
    found = lanes(known)
    assert [lane.label for lane in found] == list(LABELS)
    order = [lane.label for lane in sorted(found, key=lambda lane: lane.place)]
    assert order == [known.labels[c] for c in known.decision.ranking]
    means, errors = known.differences()
    for c, lane in enumerate(found):
        state = "dropped" if known.decision.pruned[c] else "alive"
        assert lane.state == ("leads" if lane.place == 0 else state)
        for left, width in (lane.bar, lane.interval or (0, 0)):
            assert 0 <= left <= left + width <= 100.01
        if lane.place:
            assert lane.interval is not None
            left, width = lane.interval
            crosses = means[c] < 2 * errors[c]
            assert (left < lane.bar[0]) == crosses
    # longer bars for larger differences, in proportion
    widths = np.array([lane.bar[1] for lane in found])
    np.testing.assert_allclose(widths / widths.max(), means / means.max(), atol=1e-3)


def test_what_visitors_type_is_text():
    known = named(record(labels=ODD), ODD)
    drawn = race_html(moment(known), 1e9) + table_html(known) + words_html(ODD)
    for tag in re.findall(r"<(\w+)", drawn):
        assert tag not in ("img", "script")
    assert (
        "onerror=&#34;" in drawn and "a&#39;b&#34;c" in drawn and "Ü{{1}}${2}" in drawn
    )
    assert "</style" not in drawn


def test_ten_thousand_classes_are_a_small_page():
    labels = tuple(f"class {i}" for i in range(10_000))
    known = record("exhaustive:n_samples=2", labels=labels, cut=1e-3)
    drawn = race_html(moment(known, done=False), 1e9)
    assert drawn.count("<li") == LANES and len(drawn) < 20_000
    assert "9,988 more classes" in drawn and "10,000 of 10,000" in drawn
    assert "9,980 more" in table_html(known)


@pytest.mark.parametrize("among", [(0, 1, 2), (2, 5)])
def test_who_was_left_out_is_told(among):
    race = Racing(n_samples=8)
    state = restrict(race.start(len(LABELS), 1000), among)

    def evaluate(state, request):
        rows = request.classes[:, None] * 1e-3
        return np.float32(rows + np.zeros(len(request.samples)))

    state = run_on(race, state, evaluate)
    known = replace(
        record(), samples=state.samples, table=state.table, prompt_decision=rank(state)
    )
    states = {lane.label: lane.state for lane in lanes(known)}
    for c, label in enumerate(LABELS):
        assert (states[label] == "out") == (c not in among)
    drawn = race_html(moment(known), 1e9) + table_html(known)
    assert "left out" in drawn and "nan" not in drawn and "inf" not in drawn


def test_before_the_first_look_there_are_no_lanes():
    drawn = race_html(None, 1e9, "tiny")
    assert "tiny" in drawn and "<li" not in drawn


def test_nothing_is_fetched():
    known = record()
    assert not re.search(r"https?:|url\(", race_html(moment(known), 1.0) + style())


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (0.0, "0 FLOP"),
        (999.0, "999 FLOP"),
        (2.96e10, "29.6 GFLOP"),
        (8e14, "800 TFLOP"),
    ],
)
def test_flops_have_three_digits(flops, text):
    assert flops_text(flops) == text
