import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from colours import contrast
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from report_runs import NAMES, NASTY, write_runs

from diffjax.report import charts
from diffjax.report.compare import read_report
from diffjax.report.study_plots import study_figure
from diffjax.runs.evidence import Confusions
from diffjax.runs.studies import STUDIES

WHITE, DARK_PAPER = np.array(to_rgb("#fefefe")), np.array(to_rgb("#15181c"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    paths = write_runs(tmp_path_factory.mktemp("runs"))
    return read_report([paths[name] for name in ("whole", "staged", "part")]).runs


@pytest.fixture(scope="module")
def figures(runs):
    whole = runs[0]
    return {
        "accuracy": charts.accuracy_chart(runs),
        "cost": charts.cost_chart(runs),
        "confusion": charts.confusion_chart(whole.confusions),
        "error": charts.error_chart(whole.error_curve),
        "calibration": charts.calibration_chart(whole.calibrations),
    }


@pytest.fixture(scope="module")
def files(figures):
    return {name: charts.svg(figure) for name, figure in figures.items()}


def words(svg):
    root = ElementTree.fromstring(svg)
    return [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_charts_are_files_of_their_own(files):
    for svg in files.values():
        ElementTree.fromstring(svg)  # well-formed, whatever names hold
        assert not re.search(r'href="(?!#)', svg)
        assert not re.search(r"url\((?!#)", svg)
        assert "<script" not in svg and "<image" not in svg
        assert len(svg) < 60_000


def test_the_same_chart_is_the_same_file(runs):
    again = [charts.svg(charts.error_chart(runs[0].error_curve)) for _ in range(2)]
    assert again[0] == again[1]


def test_text_stays_text(files, runs):
    assert {"top-1 accuracy", "whole", "staged", "part"} <= set(words(files["cost"]))
    rate = runs[0].rate("acc1")
    assert f"{100 * rate.value:.1f}" in words(files["accuracy"])
    shown = words(files["confusion"])
    assert NASTY[0][:15] + "…" in shown and "cat" in shown
    assert any(text.startswith('a "quoted" & $') for text in shown)


def test_colours_follow_the_readers_scheme(files):
    for svg in files.values():
        style, body = svg.split("</style>", 1)
        for light, dark in charts.DARK.items():
            assert light in style and dark in style
            assert light not in body
        used = set(re.findall(r"var\((--c\d)\)", body))
        assert used and all(f"{name}:" in style for name in used)


def test_bars_are_as_long_as_the_accuracies(figures, runs):
    (axes,) = figures["accuracy"].axes
    bars = [c for c in axes.containers if isinstance(c, BarContainer)]
    widths = [bar.patches[0].get_width() for bar in bars]
    rates = [run.rate(metric).value for run in runs for metric in ("acc1", "acc5")]
    assert widths == rates


def test_points_stand_at_cost_and_accuracy(figures, runs):
    (axes,) = figures["cost"].axes
    points = [tuple(c.lines[0].get_xydata()[0]) for c in axes.containers]
    assert points == [
        (run.row["evaluations_per_image"], run.row["acc1"]) for run in runs
    ]
    curve = runs[0].sample_curve
    assert any(
        np.array_equal(line.get_xydata(), np.c_[curve.evaluations, curve.accuracy])
        for line in axes.lines
    )
    markers = {c.lines[0].get_marker() for c in axes.containers}
    assert len(markers) == len(runs)  # told apart without colour


def numbers_of(axis):
    """The texts that are drawn along an axis, within its ends."""
    low, high = sorted(axis.get_view_interval())
    reach = (high - low) * 1e-6
    return [
        tick.label1.get_text()
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if low - reach <= tick.get_loc() <= high + reach and tick.label1.get_text()
    ]


def test_every_axis_has_numbers(figures, runs):
    for each in (*figures.values(), charts.cost_chart(runs[:1])):
        each.draw_without_rendering()
        for axes in each.axes:
            for axis in (axes.xaxis, axes.yaxis):
                assert len(set(numbers_of(axis))) >= 2


def test_studies_have_numbers_however_narrow_they_are():
    rates = {"accuracy": [0.5, 0.51], "low": [0.4, 0.45], "high": [0.6, 0.61]}
    t = {"timestep": [10, 20]}
    narrow = {
        "variance": t | {"sd_of_errors": [2.3, 2.4], "sd_of_differences": [2.1, 2.2]},
        "timestep": t | rates | {"samples": [5, 5]},
        "samples": {"where": ["even", "even"], "samples": [3, 4]} | rates,
    }
    assert set(narrow) == set(STUDIES)
    for study, table in narrow.items():
        figure = study_figure(study, table, "title", 0.1)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        for axis in (axes.xaxis, axes.yaxis):
            assert len(set(numbers_of(axis))) >= 2, study


@pytest.mark.parametrize(
    ("costs", "shown"),
    [
        ((239, 300), ["200", "500"]),
        ((300,), ["200", "500"]),
        ((100,), ["50", "100", "200"]),
        ((1,), ["0.5", "1", "2"]),
        ((480, 2050, 9250), ["200", "500", "1,000", "2,000", "5,000", "10,000"]),
        ((8, 124_500), ["10", "100", "1,000", "10,000", "100,000"]),
    ],
)
def test_costs_lie_between_round_numbers(costs, shown):
    with charts._figure(2.0) as (figure, axes):
        axes.plot(costs, costs, "o")
        axes.set_xscale("log")
        charts.round_ends(axes)
        figure.draw_without_rendering()
    assert numbers_of(axes.xaxis) == shown
    low, high = axes.get_xlim()
    assert low < min(costs) and max(costs) < high


def test_ticks_of_a_narrow_axis_differ():
    with charts._figure(2.0) as (figure, axes):
        charts._percent(axes, "y")
        axes.set_ylim(0.658, 0.676)
        figure.draw_without_rendering()
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(set(ticks)) == len(ticks) > 3


def test_counts_can_be_read_on_their_squares():
    """All shades that occur, on light and on dark paper."""
    counts = np.array([[n, 100 - n] for n in range(1, 51)])
    counts = np.pad(counts, ((0, 0), (0, 48)))
    matrix = Confusions(
        names=tuple(map(str, range(50))),
        counts=counts,
        elsewhere=np.zeros(50, np.int64),
        n_classes=50,
        pairs=(),
    )
    (axes,) = charts.confusion_chart(matrix).axes
    texts = [text for text in axes.texts if text.get_text()]
    assert len(texts) == len(axes.patches) == 100
    for text, square in zip(texts, axes.patches, strict=True):
        *colour, alpha = square.get_facecolor()
        drawn = text.get_color()
        for paper, seen in (
            (WHITE, drawn),
            (DARK_PAPER, charts.DARK.get(drawn, drawn)),
        ):
            blend = alpha * np.array(colour) + (1 - alpha) * paper
            assert contrast(blend, to_rgb(seen)) >= 4.5


def test_lines_and_bars_stand_out_on_both_papers():
    for colour in charts.COLOURS:
        for paper in (WHITE, DARK_PAPER):
            assert contrast(to_rgb(colour), paper) >= 3


def test_names_are_cut_and_made_printable():
    assert charts.short("abc", 3) == "abc"
    assert charts.short("abcd", 3) == "ab…"
    assert charts.short("a\x00b\ud800\n", 9) == "a�b��"
    assert charts.short("95\N{NO-BREAK SPACE}%", 9) == "95\N{NO-BREAK SPACE}%"
    assert all(len(charts.short(name, 16)) <= 16 for name in NAMES)
    assert charts.ends("cifar10-sd-racing", 17) == "cifar10-sd-racing"
    assert charts.ends("cifar10-sd-racing", 10) == "cifar…cing"
    assert len(charts.ends("x" * 99, 40)) == 40
