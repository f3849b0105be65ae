"""Explanations: their maps are the grid's errors, laid out over the image."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small import class_model, images, text_model

import diffjax
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.explanation import Explanation, explain
from diffjax.classify.settings import Settings
from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.report.heatmaps import explanation_figure, overlay
from diffjax.strategies.exhaustive import Exhaustive

SHIP = Path(diffjax.__file__).parent / "assets" / "images" / "0202_ship.png"
STRATEGY = Exhaustive(n_samples=6)


@pytest.mark.parametrize(
    ("make", "loss"), [(text_model, "l1"), (class_model, "l2+vlb")]
)
def test_the_mean_of_a_map_is_the_cell_of_the_grid(make, loss):
    model = make()
    labels = list((model.class_names or ("cat", "dog"))[:2])
    classifier = DiffusionClassifier(
        model, Settings(strategy=STRATEGY, cells=8, loss=loss)
    )
    [image] = images(1)
    found = explain(classifier, image, *labels, n_samples=6)
    record = classifier.classify(image, labels)
    timesteps, errors = record.by_timestep()
    np.testing.assert_array_equal(found.timesteps, timesteps)
    assert found.maps.shape == (6, 2, 8, 8)
    np.testing.assert_allclose(found.maps.mean(axis=(2, 3)).T, errors, rtol=1e-5)
    assert found.difference == pytest.approx(
        (errors[1] - errors[0]).mean(), rel=1e-4, abs=1e-7
    )


def made_up(S=7, seed=0):
    random = np.random.default_rng(seed)
    return Explanation(
        pixels=random.uniform(-1, 1, (8, 8, 3)).astype(np.float32),
        label="cat",
        other="dog",
        timesteps=np.arange(S) * 10,
        maps=random.normal(size=(S, 2, 4, 4)).astype(np.float32),
        settings={"model": "small", "loss": "l2"},
    )


def test_bands_share_the_samples_out():
    found = made_up()
    bands = found.bands(3)
    assert [(b.first, b.last) for b in bands] == [(0, 20), (30, 40), (50, 60)]
    sizes = np.array([3, 2, 2])
    together = np.average([b.evidence for b in bands], axis=0, weights=sizes)
    [whole] = found.bands(1)
    np.testing.assert_allclose(together, whole.evidence)
    assert whole.evidence.mean() == pytest.approx(found.difference)
    d = found.maps[3:5, 1].astype(float) - found.maps[3:5, 0]
    np.testing.assert_allclose(bands[1].standard_error, np.abs(d[0] - d[1]) / 2)
    assert np.isnan(found.bands(7)[0].standard_error).all()
    with pytest.raises(ValueError, match="7 samples do not make 8 bands"):
        found.bands(8)


def test_the_overlay_colours_by_sign_and_leaves_the_rest_grey():
    evidence = np.zeros((4, 4))
    evidence[0, 0], evidence[3, 3] = 2.0, -2.0
    pixels = np.zeros((8, 8, 3), np.float32)
    mixed, strongest = overlay(pixels, evidence)
    assert strongest == pytest.approx(2.0)
    blue, orange = mixed[1, 1], mixed[6, 6]
    assert blue[2] > blue[0] and orange[0] > orange[2]
    np.testing.assert_allclose(mixed[4, 0], 0.5)
    flat, nothing = overlay(pixels, np.zeros((4, 4)))
    np.testing.assert_allclose(flat, 0.5)
    assert nothing == 0


def test_the_picture_has_a_panel_for_each_band():
    figure = explanation_figure(made_up(), 3)
    titles = [a.get_title() for a in figure.axes]
    assert titles[:2] == ["the image", "all timesteps"]
    assert titles[2:] == ["t = 0 … 20", "t = 30 … 40", "t = 50 … 60"]
    assert len(explanation_figure(made_up(), 1).axes) == 2


def test_a_bar_below_each_map_says_which_colour_is_how_much():
    found = made_up()
    _, *maps = explanation_figure(found, 3).axes
    for axes, band in zip(maps, [*found.bands(1), *found.bands(3)], strict=True):
        [bar] = axes.child_axes
        _, strongest = overlay(found.pixels, band.evidence)
        np.testing.assert_allclose(
            bar.get_xticks(), [-1e3 * strongest, 0, 1e3 * strongest]
        )
        assert "×10⁻³" in bar.get_xlabel()
        colours = bar.get_images()[0].get_array()[0]
        assert colours[0, 0] > colours[0, 2] and colours[-1, 2] > colours[-1, 0]
        assert np.ptp(colours[100]) == 0  # grey for nothing


def test_the_command_draws_and_tells(tmp_path):
    out = tmp_path / "ship.png"
    command = ["explain", str(SHIP), "--labels", "ship,truck", "--n-samples", "4"]
    done = CliRunner().invoke(
        group, [*command, "--bands", "2", "--out", str(out), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(b"\x89PNG")
    told = json.loads(done.stdout)
    assert told["labels"] == ["ship", "truck"]
    assert np.shape(told["bands"][1]["evidence"]) == (16, 16)
    means = [np.mean(band["evidence"]) for band in told["bands"]]
    assert np.mean(means) == pytest.approx(told["difference"], rel=1e-6)


def test_a_name_is_no_markup(tmp_path):
    out = tmp_path / "a[" / "b].png"  # in rich's markup the end of a tag
    out.parent.mkdir()
    command = ["explain", str(SHIP), "--labels", "ship,truck", "--n-samples", "2"]
    done = CliRunner().invoke(group, [*command, "--bands", "2", "--out", str(out)])
    assert done.exit_code == 0, done.exception
    assert f"Wrote {out}." in done.stderr


def test_a_band_of_one_sample_has_no_standard_error_and_quiet_is_quiet(tmp_path):
    command = ["explain", str(SHIP), "--labels", "ship,truck", "--n-samples", "2"]
    out = str(tmp_path / "ship.png")
    done = CliRunner().invoke(
        group, [*command, "--bands", "2", "--out", out, "--json", "--quiet"]
    )
    assert done.exit_code == 0 and done.stderr == ""
    for band in json.loads(done.stdout, parse_constant=pytest.fail)["bands"]:
        assert {x for row in band["standard_error"] for x in row} == {None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--labels", "cat"], "--labels takes two labels"),
        (["--labels", "cat,cat"], "Two different labels are needed"),
        (["--labels", "a,b", "--n-samples", "2"], "2 samples do not make 3 bands"),
        (["--labels", "a,b", "--out", "x.doc"], "must end in one of .png"),
    ],
)
def test_bad_input_is_told(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(group, ["explain", str(SHIP), *given])
    said = done.stderr + str(done.exception)
    assert done.exit_code != 0 and message in said
    assert list(tmp_path.iterdir()) == []


def test_the_same_label_twice_is_refused():
    classifier = DiffusionClassifier(text_model(), Settings(strategy=STRATEGY))
    with pytest.raises(DiffjaxError, match="Two different labels"):
        explain(classifier, images(1)[0], "cat", "cat")
