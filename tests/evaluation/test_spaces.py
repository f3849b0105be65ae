"""Errors in the space of noise, of data and of velocity: evaluated, and rescored."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from noise_runs import Made, assert_same, task_of
from saved_runs import tables, write_run
from small import class_model, images, text_model

from diffjax.checkpoints.loading import load_model
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings, loss_name
from diffjax.cli.group import group
from diffjax.cli.rescore import rescore as rescore_command
from diffjax.errors import DiffjaxError
from diffjax.evaluation.runner import evaluate
from diffjax.runs.folder import read_run
from diffjax.runs.rescoring import rescore, saved_errors, write_rescored
from diffjax.schedules import Schedule
from diffjax.strategies import parse_shortlist
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing

T = 1000
FLOW = Schedule.flow(np.arange(1, T + 1) / T)


MODELS = {
    "tiny": lambda: load_model("tiny"),
    "flow": lambda: text_model(schedule=FLOW),
    "classes": class_model,
}


def run_of(model, path, *, strategy=None, **settings):
    strategy = strategy or Exhaustive(n_samples=8)
    clf = DiffusionClassifier(model, Settings(strategy=strategy, **settings))
    names = {} if model.kind == "text" else {"names": [f"class {c}" for c in range(10)]}
    evaluate(task_of(Made(**names), range(3)), clf, path, save_errors=True)
    return read_run(path)


@pytest.fixture(scope="module", params=MODELS)
def noise_run(request, tmp_path_factory):
    model = MODELS[request.param]()
    path = tmp_path_factory.mktemp(request.param) / "noise"
    return model, run_of(model, path, also=("l1",))


@pytest.mark.parametrize("space", ["data", "velocity"])
def test_rescored_is_as_evaluated(noise_run, tmp_path, space):
    """By l2, decided, and by l1, had along; from noise, and back to it."""
    model, before = noise_run
    assert "space" not in before.header["experiment"]
    there = run_of(model, tmp_path / space, also=("l1",), space=space)
    assert there.header["experiment"]["space"] == space
    for loss in ("l2", "l1"):
        of = {run: list(saved_errors(run, loss)) for run in (before, there)}
        for run, other, name in ((before, there, space), (there, before, "noise")):
            found = list(saved_errors(run, loss, name))
            for one, two, same in zip(found, of[other], of[run], strict=True):
                np.testing.assert_allclose(one.errors, two.errors, rtol=2e-6)
                assert not np.allclose(one.errors, same.errors, rtol=0.01)
        again = rescore(before, loss=loss, space=space)
        expected = rescore(there, loss=loss)
        for row, other in zip(again.rows, expected.rows, strict=True):
            assert row["prediction"] == other["prediction"]
            assert list(row["ranking"]) == list(other["ranking"])
            np.testing.assert_allclose(
                row["differences"], other["differences"], rtol=1e-4, atol=1e-7
            )


def test_a_strategy_sees_the_space(noise_run, tmp_path):
    """A race in the space of data prunes as it does on errors taken there."""
    model, before = noise_run
    race = Racing(n_samples=8, confidence=0.6, floor=2, chunk=2)
    raced = run_of(model, tmp_path / "race", strategy=race, space="data")
    columns = ("prediction", "evaluations", "n_samples")
    # the run's samples stand for the timesteps, which are the race's own
    again = rescore(before, space="data", strategy=race)
    for row, other in zip(again.rows, raced.rows.to_pylist(), strict=True):
        for column in columns[:2]:
            assert row[column] == other[column]
        assert list(row["n_samples"]) == other["n_samples"]


def test_a_shortlist_estimates_in_the_space():
    model = text_model()
    shortlist = parse_shortlist("k=2:n_samples=4")
    chosen = {}
    for space in ("noise", "velocity"):
        settings = Settings(
            strategy=Exhaustive(n_samples=4), shortlist=shortlist, space=space
        )
        record = DiffusionClassifier(model, settings).classify(
            images(1)[0], ["cat", "dog", "ship", "frog"]
        )
        chosen[space] = record.table.errors
    seen = {space: ~np.isnan(table) for space, table in chosen.items()}
    both = seen["noise"] & seen["velocity"]
    ratio = chosen["velocity"][both] / chosen["noise"][both]
    assert (ratio > 1).all()  # 1 / a², at least


def test_a_rescored_run_says_its_space_and_runs_go_on(noise_run, tmp_path):
    model, before = noise_run
    written = write_rescored(rescore(before, space="data"), tmp_path / "data")
    assert loss_name(written.header["experiment"]) == "l2 of data"
    assert loss_name(before.header["experiment"]) == "l2"
    with pytest.raises(DiffjaxError, match=r"experiment\.space: data there, null here"):
        path = run_of(model, tmp_path / "run", space="data").path
        run_of(model, path)


def test_a_run_from_before_learns_of_spaces_when_it_goes_on(tmp_path):
    model = text_model()
    run = run_of(model, tmp_path / "run")
    header = json.loads((run.path / "run.json").read_text())
    spaces = header.pop("spaces")
    (run.path / "run.json").write_text(json.dumps(header))
    with pytest.raises(DiffjaxError, match="The command that began it adds that"):
        rescore(read_run(run.path), space="data")
    again = run_of(model, run.path)
    assert again.header["spaces"] == spaces and len(spaces["data"].split()) == T
    assert_same(again.rows, run.rows, but=())
    rescore(again, space="data")


@pytest.mark.parametrize("text", ["", "1 2 3", "a " * T, None])
def test_damaged_factors(tmp_path, text):
    errors, labels = tables(4, 3, 8)
    run = write_run(tmp_path / "run", errors, labels)
    run.header["spaces"] = {"data": text}
    with pytest.raises(DiffjaxError, match=r"run\.json is damaged: spaces"):
        rescore(run, space="data")


@pytest.mark.parametrize("loss", ["huber", "vlb", "l2+vlb"])
def test_other_losses_know_no_space(tmp_path, loss):
    for settings in ({"loss": loss}, {"also": (loss,)}):
        with pytest.raises(DiffjaxError, match="Use l2 or l1 there"):
            Settings(space="velocity", **settings)
    with pytest.raises(DiffjaxError, match="space"):
        Settings(space="z0")
    errors, labels = tables(4, 3, 8)
    run = write_run(tmp_path / "run", errors, labels, also={loss: errors})
    with pytest.raises(DiffjaxError, match=f"{re.escape(loss)} is of the noise"):
        rescore(run, loss=loss, space="data")


def test_where_nothing_is_left_of_the_image(tmp_path):
    """The last timestep of a flow: refused by name, before and after."""
    short = Schedule.flow(np.arange(1, 9) / 8)
    model = text_model(schedule=short)
    clf = DiffusionClassifier(
        model, Settings(strategy=Exhaustive(n_samples=8), space="velocity")
    )
    for run in (
        lambda: clf.classify(images(1)[0], ["cat", "dog"]),
        lambda: evaluate(task_of(Made()), clf, tmp_path / "refused"),
    ):
        with pytest.raises(DiffjaxError, match="At timestep 7 nothing is left"):
            run()
    assert not (tmp_path / "refused").exists()
    saved = run_of(model, tmp_path / "noise")
    with pytest.raises(DiffjaxError, match="infinite in the space of data"):
        rescore(saved, space="data")
    fewer = DiffusionClassifier(
        model, Settings(strategy=Exhaustive(n_samples=2), space="velocity")
    )
    assert np.isfinite(fewer.classify(images(1)[0], ["cat", "dog"]).errors).all()


def test_rescore_from_the_command_line(noise_run):
    _, run = noise_run
    ran = CliRunner().invoke(
        rescore_command, [str(run.path), "--space", "velocity", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["settings"]["space"] == "velocity"
    refused = CliRunner().invoke(
        group, ["classify", "x.png", "--loss", "huber", "--space", "data"]
    )
    assert refused.exit_code == 2
