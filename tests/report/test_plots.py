import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from saved_runs import named

from diffjax.checkpoints.catalog import MODELS
from diffjax.classify.record import Record
from diffjax.cli import tables
from diffjax.errors import DiffjaxError
from diffjax.report import plots
from diffjax.strategies import parse_strategy, strategy_to_dict
from diffjax.strategies.base import run

LABELS = ("cat", "dog", "bird", "deer", "frog", "$ship$")


def record(
    strategy="staged:to_keep=3,1:n_samples=10,40:order=nested",
    labels=LABELS,
    cut=1.0,
    pixels=None,
):
    """Synthetic: class 1 wins, the others' errors grow with their number."""
    rng = np.random.default_rng(0)
    chosen = parse_strategy(strategy)
    gaps = 2e-3 * cut * np.abs(np.arange(len(labels)) - 1)

    def evaluate(state, request):
        t = state.samples.timesteps[request.samples]
        shared = 0.1 + rng.normal(0, 0.05, len(t))
        own = rng.normal(0, 1e-3, (len(request.classes), len(t)))
        gap = gaps[request.classes][:, None] * (t < 500)
        return (shared + own + gap).astype(np.float32)

    state = run(chosen, len(labels), 1000, evaluate)
    return Record(
        pixels=image() if pixels is None else pixels,
        prompts=named(labels),
        samples=state.samples,
        table=state.table,
        prompt_decision=chosen.decide(state),
        temperature=1e-3,
        seconds=1.5,
        settings={
            "model": "tiny",
            "strategy": strategy_to_dict(chosen),
            "loss": "l2",
        },
    )


def image(seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (8, 8, 3)).astype(np.float32)


def shown(renderable, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def words(figure):
    """All text in a figure."""
    import matplotlib.text

    return " ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def test_a_figure_has_a_row_an_image_and_says_what_it_shows(tmp_path):
    records = [record(), record("exhaustive:n_samples=20")]
    figure = plots.classification_figure(records, ["a.png", "b.png"], ["dog", "bird"])
    assert len(figure.axes) == 6
    text = words(figure)
    for part in ("a.png", "b.png", "✓ dog", "✗ dog (truth: bird)", "pruned after 10"):
        assert part in text, part
    for part in ("staged:to_keep=3,1", "loss l2", "τ = 0.001", "model tiny"):
        assert part in text, part

    path = tmp_path / "out.png"
    plots.save_figure(figure, path)
    with Image.open(path) as picture:
        assert picture.width > 800 and picture.height > 400
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_the_image_is_drawn_as_the_model_saw_it():
    records = [record(pixels=image(seed)) for seed in (0, 1)]
    figure = plots.classification_figure(records, ["a.png", "b.png"])
    for seed, axes in enumerate((figure.axes[0], figure.axes[3])):
        (drawn,) = axes.images
        np.testing.assert_allclose(drawn.get_array(), (image(seed) + 1) / 2, atol=1e-6)


def test_bars_are_the_scores_and_the_pruned_are_hatched():
    r = record()
    figure = plots.classification_figure([r], ["a.png"])
    bars = figure.axes[1].patches
    np.testing.assert_allclose(
        [bar.get_width() for bar in bars], [e["score"] for e in r.scores()]
    )
    assert [bool(bar.get_hatch()) for bar in bars] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("exhaustive:n_samples=40", ["bands: "]),
        ("exhaustive:n_samples=1", []),
        ("staged:to_keep=5,1:n_samples=20,40", ["bands: ", "; hatched: pruned"]),
        ("staged:to_keep=2,1:n_samples=20,40", ["bands: ", "; hatched, dashed: pru"]),
    ],
)
def test_the_legend_names_what_is_drawn(strategy, said):
    figure = plots.classification_figure([record(strategy)], ["a.png"])
    footer = figure.get_supxlabel()
    for word in ("bands: ", "hatched", "dashed"):
        assert (word in footer) == any(word in each for each in said)
    assert all(each in footer for each in said)
    hatched = any(bar.get_hatch() for bar in figure.axes[1].patches)
    dashed = any(line.get_linestyle() == "--" for line in figure.axes[2].lines)
    assert (hatched, dashed) == ("hatched" in footer, "dashed" in footer)


def test_of_many_labels_the_first_are_shown_and_none_is_read_as_mathematics():
    labels = [f"a class with a long name that goes on, ${i}^" for i in range(300)]
    r = record("exhaustive:n_samples=4", labels, cut=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.classification_figure([r], ["x"], [labels[1]])
        figure.canvas.draw()
    assert "and 290 more" in words(figure)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_figure_of_very_few_samples_can_be_drawn(n):
    r = record(f"exhaustive:n_samples={n}", ("cat", "dog"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.classification_figure([r], ["x"]).canvas.draw()


def test_a_curve_is_the_mean_difference_in_bins_of_the_timestep():
    r = record("exhaustive:n_samples=100")
    c = 3
    curve = plots.difference_curve(r, c)
    assert len(curve.timesteps) == plots.N_BINS
    d = (r.errors[c].astype(np.float64) - r.errors[r.decision.winner]).reshape(10, 10)
    np.testing.assert_allclose(curve.mean, d.mean(axis=1))
    np.testing.assert_allclose(
        curve.standard_error, d.std(axis=1, ddof=1) / np.sqrt(10)
    )
    np.testing.assert_allclose(curve.timesteps, np.arange(10) * 100 + 50, atol=1)


def test_a_pruned_class_has_a_curve_over_what_it_saw():
    r = record()
    c = int(r.decision.ranking[-1])
    assert r.decision.pruned[c]
    curve = plots.difference_curve(r, c)
    assert len(curve.timesteps) == 2  # of ten samples
    assert np.isfinite(curve.mean).all() and (np.diff(curve.timesteps) > 0).all()


def test_the_winner_has_no_difference_to_itself():
    r = record()
    curve = plots.difference_curve(r, r.decision.winner)
    assert (curve.mean == 0).all() and (curve.standard_error == 0).all()


def test_as_many_images_as_fit():
    plots.check_rows(1)
    plots.check_rows(plots.MAX_ROWS)
    for n in (0, plots.MAX_ROWS + 1):
        with pytest.raises(DiffjaxError, match=str(n)):
            plots.check_rows(n)


def test_where_a_picture_can_go(tmp_path):
    good = tmp_path / "out.png"
    plots.check_output(good)
    assert not good.exists()
    good.write_bytes(b"before")
    plots.check_output(good)
    assert good.read_bytes() == b"before"
    plots.check_output(tmp_path / "OUT.PDF")


@pytest.mark.parametrize("name", ["nowhere/out.png", "out.txt", "out", "folder.png"])
def test_where_a_picture_cannot_go(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DiffjaxError, match=name.replace(".", r"\.")):
        plots.check_output(tmp_path / name)


def test_plots_and_tables_know_no_jax():
    code = (
        "import sys, diffjax.report.plots, diffjax.cli.tables;"
        "print([m for m in ('jax', 'flax', 'transformers', 'torch', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("width", [80, 120])
def test_the_ranking_says_what_it_rests_on(width):
    text = shown(tables.ranking_table(record(), "pictures/a.png"), width)
    lines = text.splitlines()
    assert "pictures/a.png → dog" in lines[0]
    assert lines[2].split()[:2] == ["1", "dog"] and lines[2].split()[-1] == "40"
    assert sum(line.rstrip().endswith("10  pruned") for line in lines) == 3
    assert lines[-1].startswith("150 evaluations in 1.5 s")
    assert max(map(len, lines)) <= width


def test_the_ranking_is_cut():
    text = shown(tables.ranking_table(record(), "a.png", top=2))
    assert "and 4 more" in text
    assert "frog" not in text
    assert "compilation" not in text


def test_labels_and_names_are_not_read_as_markup():
    r = record("exhaustive:n_samples=4", ("[bold]cat[/bold]", "[/] [red]"), cut=0)
    text = shown(tables.ranking_table(r, "[blue]a.png"), 120)
    for part in ("[bold]cat[/bold]", "[/] [red]", "[blue]a.png"):
        assert part in text


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.00123, 0.0004, "+1.23 ± 0.40"),
        (-0.0002, 0.001, "-0.20 ± 1.00"),
        (0.001, np.inf, "+1.00 ± ?"),
        (np.nan, np.inf, "unknown"),
    ],
)
def test_differences_are_given_in_thousandths(mean, error, text):
    assert tables.difference_text(mean, error) == text


def test_scores_of_pruned_classes_say_that_they_are_rough():
    assert tables.score_text(0.25, False) == "0.250"
    assert tables.score_text(0.2, True) == "≈0.200"


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (12, "12"),
        (865_910_724, "866 M"),
        (1_289_952_427, "1.29 B"),
        (1_500, "1.5 k"),
    ],
)
def test_counts_have_three_digits(n, text):
    assert tables.count_text(n) == text


def test_the_demo_table_counts_what_is_right():
    r = record()
    text = shown(tables.demo_table([("a", "dog", r), ("b", "cat", r)]))
    assert "✓ dog" in text and "✗ dog" in text
    assert "1 of 2 right" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_models_table_names_every_model(width):
    text = shown(tables.models_table(list(MODELS.values())), width)
    for model in MODELS.values():
        assert model.name in text
        assert model.hub_id is None or model.hub_id in text
    assert max(map(len, text.splitlines())) <= width
