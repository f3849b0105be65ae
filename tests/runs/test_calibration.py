import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import write_run
from small import text_model

import diffjax
from diffjax.checkpoints.catalog import ASSETS
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.temperatures import temperatures_in
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.classify.temperature import read_temperature
from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.runs.calibration import (
    calibrate,
    fit_temperature,
    write_calibration,
)
from diffjax.runs.folder import read_run
from diffjax.runs.header import differences
from diffjax.runs.metrics import reliability, run_log_scores
from diffjax.runs.outcomes import outcomes

RNG = np.random.default_rng(0)


def calibrated(n, temperature, C=5, spread=1.0, seed=0):
    """Errors [n, C, 1] and labels drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    errors = spread * rng.standard_normal((n, C))
    # Gumbel's trick: the argmax of −e/τ + g is a draw from the softmax
    labels = (-errors / temperature + rng.gumbel(size=(n, C))).argmax(axis=1)
    return errors[:, :, None].astype(np.float32), labels


def excess(errors, labels):
    errors = errors[:, :, 0].astype(np.float64)
    own = np.take_along_axis(errors, labels[:, None], axis=1)
    over = errors - own
    np.put_along_axis(over, labels[:, None], np.inf, axis=1)
    return over


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_temperature_is_recovered(temperature, scale):
    over = excess(*calibrated(10_000, temperature))
    assert fit_temperature(over * scale) == pytest.approx(temperature * scale, rel=0.06)


def test_the_fit_is_the_minimum():
    over = excess(*calibrated(300, 0.7))
    best = fit_temperature(over)

    def nll(temperature):
        return np.log1p(np.exp(-over / temperature).sum(axis=1)).mean()

    grid = best * np.exp(np.linspace(-1, 1, 201))
    assert nll(best) <= min(map(nll, grid)) + 1e-9


def test_rivals_out_of_the_question_do_not_count():
    over = excess(*calibrated(300, 0.7))
    more = np.concatenate([over, np.full((300, 3), np.inf)], axis=1)
    assert fit_temperature(more) == pytest.approx(fit_temperature(over))


def test_where_no_temperature_fits_the_reason_is_given():
    right = np.abs(RNG.standard_normal((20, 3)))
    with pytest.raises(DiffjaxError, match="all 20 images are classified correctly"):
        fit_temperature(right)
    with pytest.raises(DiffjaxError, match="no more than by chance"):
        fit_temperature(-right)
    with pytest.raises(DiffjaxError, match="all 2 images"):
        fit_temperature(np.full((2, 3), np.inf))


def test_calibration_mends_what_is_wrong(tmp_path):
    errors, labels = calibrated(2000, 0.5)
    run = write_run(tmp_path / "run", errors, labels, failed=[2000], save_errors=False)
    result = calibrate(run)  # the run's own temperature, 0.1, is too sure of itself
    assert result["temperature"] == pytest.approx(0.5, rel=0.06)
    assert result["temperature_before"] == 0.1
    assert result["nll_after"] < 0.7 * result["nll_before"]
    assert result["ece_after"] < 0.04 < 0.1 < result["ece_before"]
    assert (result["images"], result["left_out"]) == (2000, 1)
    assert result["model"]["fingerprint"] == "0" * 16
    assert result["loss"] == "l2" and result["strategy"]["name"] == "exhaustive"


def test_calibration_does_not_praise_itself(tmp_path):
    """Measured on held-out images: a temperature that was right is not improved."""
    gains = []
    for seed in range(10):
        errors, labels = calibrated(60, 0.1, spread=0.2, seed=seed)
        run = write_run(tmp_path / f"{seed}", errors, labels, save_errors=False)
        result = calibrate(run)
        gains.append(result["nll_before"] - result["nll_after"])
    assert np.mean(gains) < 0


def test_each_fold_is_measured_by_the_temperature_of_the_others(tmp_path):
    errors, labels = calibrated(50, 0.5)
    run = write_run(tmp_path / "run", errors, labels, save_errors=False)
    over, fold = excess(errors, labels), np.random.default_rng(0).permutation(50) % 5
    by_hand = 0.0
    for k in range(5):
        temperature = fit_temperature(over[fold != k])
        by_hand += np.log1p(np.exp(-over[fold == k] / temperature).sum(axis=1)).sum()
    result = calibrate(run)
    assert result["nll_after"] == pytest.approx(by_hand / 50, rel=1e-5)
    assert result["folds"] == 5 and "equal width" in result["ece_kind"]
    assert result["worse"] == []


def test_what_made_things_worse_is_not_written(tmp_path):
    for seed in range(10):  # the run's own temperature, 0.1, is the right one
        errors, labels = calibrated(60, 0.1, spread=0.2, seed=seed)
        run = write_run(tmp_path / f"{seed}", errors, labels, save_errors=False)
        worse = calibrate(run)["worse"]
        path = run.path / "calibration.json"
        shown = CliRunner().invoke(group, ["calibrate", str(run.path), "--json"])
        assert json.loads(shown.stdout)["worse"] == worse
        assert path.exists() == (not worse)
        assert shown.exit_code == (2 if worse else 0)
        for name in worse:
            assert f"the {name} rises by" in shown.stderr
        if worse:
            assert "is not written" in shown.stderr
            path.write_text('{"temperature": 0.3}')
            shown = CliRunner().invoke(group, ["calibrate", str(run.path)])
            assert "of an earlier time, stays" in shown.stderr
            assert read_temperature(path) == 0.3


def test_labels_that_are_no_candidates_are_left_out(tmp_path):
    errors, labels = calibrated(200, 0.5)
    all_labels = np.where(np.arange(200) < 150, labels, 6)
    run = write_run(
        tmp_path / "a", errors, all_labels, classes=[0, 1, 2, 3, 4], n_names=7
    )
    few = write_run(tmp_path / "b", errors[:150], labels[:150])
    result = calibrate(run)
    assert (result["images"], result["left_out"]) == (150, 50)
    assert result["temperature"] == calibrate(few)["temperature"]


def test_too_few_images_are_refused(tmp_path):
    errors, labels = calibrated(1, 0.5)
    with pytest.raises(DiffjaxError, match="has 1 labelled images"):
        calibrate(write_run(tmp_path / "run", errors, labels))


def test_a_calibration_is_read_again(tmp_path):
    errors, labels = calibrated(100, 0.5)
    run = write_run(tmp_path / "run", errors, labels)
    with pytest.raises(DiffjaxError, match="diffjax calibrate RUN"):
        read_temperature(run.path)
    result = calibrate(run)
    path = write_calibration(run, result)
    for place in (path, run.path, str(run.path)):
        assert read_temperature(place) == result["temperature"]


@pytest.mark.parametrize(
    "content",
    [
        *("", "[1]", "{}", "3", '{"temperature": "hot"}', '{"temperature": 0}'),
        *('{"temperature": NaN}', '{"temperature": Infinity}', '{"temperature": true}'),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = Path(tmp_path, "calibration.json")
    path.write_text(content)
    with pytest.raises(DiffjaxError, match=r"calibration\.json"):
        read_temperature(path)


def test_the_command(tmp_path):
    errors, labels = calibrated(200, 0.5)
    run = write_run(tmp_path / "run", errors, labels)
    shown = CliRunner().invoke(group, ["calibrate", str(run.path)])
    assert shown.exit_code == 0, shown.output
    assert "calibration.json" in shown.stdout and "0.1" in shown.stdout
    assert "ECE: top-label, 15 bins of equal width" in " ".join(shown.stdout.split())
    done = CliRunner().invoke(group, ["calibrate", str(run.path), "--json"])
    assert json.loads(done.stdout)["temperature"] == read_temperature(run.path)
    refused = CliRunner().invoke(group, ["calibrate", str(tmp_path)])
    assert refused.exit_code == 2 and "holds no run" in refused.stderr


def test_a_classifier_loads_it(tmp_path, recwarn):
    path = tmp_path / "calibration.json"
    fitted = {"temperature": 0.25, "model": {"name": "tiny"}, "loss": "l2"}
    path.write_text(json.dumps(fitted))
    for place in (tmp_path, path):
        classifier = DiffusionClassifier.from_pretrained("tiny", temperature=place)
        assert classifier.settings.temperature == 0.25
    assert not recwarn.list
    with pytest.warns(
        UserWarning, match="fitted to tiny by l2, and this is tiny by l1"
    ):
        DiffusionClassifier.from_pretrained("tiny", loss="l1", temperature=str(path))
    with pytest.raises(DiffjaxError, match="There is no calibration"):
        DiffusionClassifier.from_pretrained("tiny", temperature="nowhere")


# ---- temperatures that models come with

SAVED = Path(diffjax.__file__).parents[1] / "notebooks" / "saved"


@pytest.mark.parametrize(
    ("run", "model", "before"),
    [
        ("tiny-cifar10", "tiny", 0.25),
        ("dit-fashion", "tiny-dit", 0.1),
        ("flow-fashion", "tiny-flow", 0.05),
    ],
)
def test_scores_of_the_embedded_models_are_probabilities(run, model, before):
    """On all test images, of which few took part in the fit, under other settings."""
    run = read_run(SAVED / run, errors=False)
    found = outcomes(run)

    def ece(temperature):
        scores = np.exp(run_log_scores(found, temperature).max(axis=1))
        return reliability(scores, found.correct).ece

    assert ece(1e-3) > before
    assert ece(temperatures_in(ASSETS / model)["l2"]) <= 0.05


def test_a_model_comes_with_what_was_fitted_unless_something_else_is_asked_for():
    model = replace(text_model(), temperatures={"l2": 0.2, "l1 of data": 0.3})

    def chosen(**settings):
        classifier = DiffusionClassifier(model, Settings(**settings))
        return classifier.settings.temperature, classifier.calibration

    assert chosen() == (0.2, {"calibrated": True})
    assert chosen(loss="l1") == (1e-3, {"calibrated": False})
    assert chosen(loss="l1", space="data") == (0.3, {"calibrated": True})
    assert chosen(temperature=0.4) == (0.4, {})


def test_calibrate_writes_it_into_the_folder_of_a_model(tmp_path):
    errors, labels = calibrated(200, 0.5)
    run = write_run(tmp_path / "run", errors, labels)
    folder = tmp_path / "model"
    shutil.copytree(ASSETS / "tiny-dit", folder)
    command = ["calibrate", str(run.path), "--save"]
    done = CliRunner().invoke(group, [*command, str(folder)])
    assert done.exit_code == 0 and str(folder / "calibration.json") in done.stderr
    fitted = {run.header["experiment"]["loss"]: read_temperature(run.path)}
    before = temperatures_in(ASSETS / "tiny-dit")
    assert load_model(folder).temperatures == before | fitted
    # of a part from elsewhere nobody knows
    assert load_model(folder, vae=str(ASSETS / "tiny-dit" / "vae")).temperatures == {}
    refused = CliRunner().invoke(group, [*command, str(tmp_path)])
    assert refused.exit_code == 2 and "no model_index.json" in refused.stderr
    for content in ('{"l2": {"temperature": 0}}', '{"l2": {}}', '{"l2": true}', "["):
        (folder / "calibration.json").write_text(content)
        with pytest.raises(DiffjaxError, match=r"calibration\.json"):
            temperatures_in(folder)


def test_a_run_keeps_the_default_that_it_was_begun_under(tmp_path):
    errors, labels = calibrated(20, 0.5)
    there = write_run(tmp_path / "run", errors, labels).header
    asked = there | {"experiment": there["experiment"] | {"temperature": 0.7}}
    assert differences(there, asked) == ["experiment.temperature: 0.1 there, 0.7 here"]
    for calibrated_ in (True, False):
        default = {"temperature": 0.7, "calibrated": calibrated_}
        here = there | {"experiment": there["experiment"] | default}
        assert differences(there, here) == []
        assert differences(here, there) == differences(asked, there)
