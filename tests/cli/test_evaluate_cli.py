import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pipelines
import pyarrow.parquet as pq
import pytest
from commands import assert_only_refused, invoke
from tiny_sets import LABELLED, picture, png, save, write_folder, write_tfds

import diffjax
from diffjax.checkpoints import networks
from diffjax.checkpoints.loading import load_model
from diffjax.data import presets
from diffjax.evaluation import plan as planning
from diffjax.evaluation.bar import Bar
from diffjax.runs.folder import read_run
from diffjax.strategies import strategy_to_dict
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

pytestmark = pytest.mark.usefixtures("no_compile_cache")

# Two classes in every test, and two cells a tile: all compiled once.
STRATEGY = "exhaustive:n_samples=2"

EMBEDDED = Path(diffjax.__file__).parent / "assets" / "tiny"


@pytest.fixture(scope="module", autouse=True)
def load_once():
    """A model that was loaded once serves all tests; loading has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "diffjax.classify.classifier.load_model", functools.cache(load_model)
        )
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small Stable Diffusion, a folder of five images and a set "pair" of three."""
    root = tmp_path_factory.mktemp("place")
    pipelines.stable_diffusion(root / "sd")
    pipelines.dit_pipeline(root / "dit")
    write_folder(root / "photos", {"cat": 3, "dog": 2})
    examples = [{"image": png(picture(k)), "label": k % 2} for k in range(3)]
    write_tfds(root, "pair", examples, LABELLED)
    return root


@pytest.fixture
def preset(monkeypatch):
    """A preset of the set "pair"."""
    made = presets.Preset(
        name="pair",
        dataset="pair",
        split="test",
        prompts="cifar10",  # of ten classes: to be overridden
        stages=((1,), (2,)),
        loss="l1",
    )
    monkeypatch.setitem(presets.PRESETS, "pair", made)
    return made


def evaluate(place, *args, model="sd"):
    return invoke(
        *("evaluate", *args, "--model", place / model, "--cells", "2"),
    )


def photos(place, out, *args):
    return evaluate(
        place,
        *("--dataset", place / "photos", "--strategy", STRATEGY, "--out", out),
        *args,
    )


# ---- what it prints and writes


def test_a_folder_end_to_end(place, tmp_path):
    out = tmp_path / "runs" / "photos"
    result = photos(place, out, "--save-errors", "--template", "a {}")
    assert result.exit_code == 0, result.output
    run = read_run(out)
    assert run.rows["id"].to_pylist() == [
        *("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png")
    ]
    assert run.prompts.prompts == ("a cat", "a dog")
    assert run.has_errors
    assert run.header["experiment"]["template"] == ["a {}"]
    summary = json.loads((out / "summary.json").read_text())
    for part in ("acc1", f"{summary['metrics']['acc1']:.1%}", "95 %", "images", "sd"):
        assert part in result.stdout
    assert "acc5" not in result.stdout  # of two classes
    # no terminal: a line at the end, and no control codes
    line, last, work = result.stderr.splitlines()
    assert line.startswith(f"photos {place / 'sd'}: 5/5 · ")
    assert "evals/s" in line and "left" not in line
    assert last == f"Run: {out}"
    assert re.search(r"tiles; the device computed [0-9.]+ % of the time", work)
    assert "\x1b" not in result.output and "\r" not in result.output


def test_prompts_are_encoded_once_for_all_runs(place, tmp_path, monkeypatch):
    cache = "--save-errors", "--prompt-cache", tmp_path / "cache"
    plain = photos(place, tmp_path / "plain", "--save-errors")
    assert plain.exit_code == 0, plain.output
    assert photos(place, tmp_path / "one", *cache).exit_code == 0
    read = networks.read_tensors

    def refuse(folder, **kwargs):
        assert folder.name != "text_encoder", "it is read"
        return read(folder, **kwargs)

    monkeypatch.setattr(networks, "read_tensors", refuse)
    assert photos(place, tmp_path / "two", *cache).exit_code == 0
    one, two, three = (read_run(tmp_path / run) for run in ("plain", "one", "two"))
    for run in (two, three):
        assert run.rows["errors"].to_pylist() == one.rows["errors"].to_pylist()
        assert run.header["model"] == one.header["model"]


def test_json_is_the_summary(place, tmp_path):
    result = photos(place, tmp_path / "run", "--json", "--limit", "2")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["images"] == 2 and summary["evaluations_per_image"] == 4
    assert set(summary) >= {"dataset", "model", "pretrained", "task", "metrics"}


def test_the_same_command_goes_on(place, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def interrupt(bar, tally):
        if tally.done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "show", interrupt)
        result = photos(place, out)
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert len(read_run(out).rows) == 2 and not (out / "summary.json").exists()
    result = photos(place, out)
    assert result.exit_code == 0, result.output
    assert "2 of 5 were done before" in result.stderr.splitlines()[0]
    # once more, quietly: nothing is left to do
    again = photos(place, out, "--quiet")
    assert again.stdout == result.stdout
    assert again.stderr == f"Run: {out}\n"
    assert len(list((out / "parts").iterdir())) == 2


def test_another_configuration_is_refused(place, tmp_path):
    out = tmp_path / "run"
    assert photos(place, out, "--limit", "1").exit_code == 0
    result = photos(place, out, "--limit", "1", "--loss", "l1", "--quiet")
    assert_only_refused(
        result, out, "experiment.loss: l2 there, l1 here", "another folder"
    )
    assert len(read_run(out).rows) == 1


def test_corrupted_images_are_another_configuration(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "experiment.corrupt: contrast:1 there, contrast:5 here"
    few = ("--limit", "1", "--quiet", "--corrupt")
    out = tmp_path / "run"
    assert photos(place, out, *few, "contrast:1").exit_code == 0
    assert read_run(out).header["experiment"]["corrupt"] == "contrast:1"
    assert_only_refused(
        photos(place, out, *few, "contrast:5"), name, "data.fingerprint"
    )
    assert_only_refused(photos(place, out, *few, "fog:1"), "fog", "noise, blur")
    photos_and_more = ("--dataset", place / "photos", "--strategy", STRATEGY)
    assert evaluate(place, *photos_and_more, *few, "contrast:1").exit_code == 0
    assert (tmp_path / "runs" / "photos-contrast-1-sd" / "run.json").exists()


def test_a_folder_of_something_else_is_refused(place, tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert_only_refused(photos(place, tmp_path, "--quiet"), "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_run_is_named_after_data_and_model(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.v2.csv").write_text(
        "path,label\n"
        f"{place / 'photos' / 'cat' / '0.png'},cat\n"
        f"{place / 'photos' / 'dog' / '0.png'},dog\n"
    )
    few = ("--strategy", STRATEGY, "--limit", "1", "--quiet")
    for dataset in (place / "photos", "list.v2.csv", "pair:1.0.0"):
        result = evaluate(place, "--dataset", dataset, *few, "--data-dir", place)
        assert result.exit_code == 0, result.output
    monkeypatch.chdir(place / "photos")
    result = evaluate(place, "--dataset", ".", *few, "--out", tmp_path / "x")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"photos-sd", "list.v2-sd", "pair-1.0.0-sd"}


def test_candidate_classes_from_a_file(place, tmp_path):
    ids = ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png")
    file = tmp_path / "clip.csv"
    file.write_text("id,classes\n" + "\n".join(f"{name},1" for name in ids))
    result = photos(place, tmp_path / "run", "--prefilter", file)
    assert result.exit_code == 0, result.output
    assert "prefilter" in result.stdout and "40.0%" in result.stdout
    run = read_run(tmp_path / "run")
    assert set(run.rows["prediction"].to_pylist()) == {1}
    assert run.header["experiment"]["prefilter"]["name"] == "clip.csv"
    file.write_text(file.read_text().replace("dog/1.png,1", "dog/1.png,0"))
    result = photos(place, tmp_path / "run", "--prefilter", file)
    assert_only_refused(result, "experiment.prefilter.fingerprint")
    result = photos(place, tmp_path / "run")
    assert_only_refused(result, "experiment.prefilter")


# ---- presets


def test_a_preset_and_what_takes_its_place(place, tmp_path, preset):
    def run(*args):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        result = evaluate(
            place,
            *("pair", "--data-dir", place, "--template", "a {}", "--out", out),
            *("--limit", "1", *args),
        )
        assert result.exit_code == 0, result.output
        return read_run(out).header["experiment"]

    chosen = run()
    assert chosen["dataset"] == "pair" and chosen["split"] == "test"
    assert chosen["loss"] == "l2"
    assert chosen["strategy"] == strategy_to_dict(Racing(n_samples=2))
    paper = run("--paper")
    assert paper["loss"] == "l1"
    assert paper["strategy"] == strategy_to_dict(Staged(to_keep=(1,), n_samples=(2,)))
    # the default of the option, when it is given, counts as given
    changed = run("--paper", "--loss", "l2", "--strategy", "exhaustive:n_samples=4")
    assert changed["loss"] == "l2" and changed["strategy"]["n_samples"] == 4
    assert run("--split", "test[1:]")["split"] == "test[1:]"


def test_a_run_of_the_papers_settings_goes_on_with_them(place, tmp_path, preset):
    """As all runs of presets were, before racing was the default."""

    def run(*args):
        return evaluate(
            place,
            *(
                "pair",
                "--data-dir",
                place,
                "--template",
                "a {}",
                "--out",
                tmp_path / "r",
            ),
            *("--limit", "1", "--quiet", *args),
        )

    assert run("--loss", "l1", "--strategy", preset.paper).exit_code == 0
    hint = "begun with the settings of the paper, which --paper takes"
    assert_only_refused(run(), "strategy.name: staged there, racing here", hint)
    assert_only_refused(run("--strategy", preset.paper), "loss: l1 there", hint)
    assert run("--paper").exit_code == 0
    refused = run("--loss", "huber", "--strategy", preset.paper)
    assert_only_refused(refused, "loss: l1 there, huber here")
    assert hint not in refused.stderr


def test_a_run_says_the_stages_that_a_name_stands_for(place, tmp_path):
    few = ("--dataset", place / "photos", "--limit", "1", "--out", tmp_path, "--quiet")
    assert evaluate(place, *few, "--strategy", "staged").exit_code == 0
    strategy = read_run(tmp_path).header["experiment"]["strategy"]
    assert (strategy["to_keep"], strategy["n_samples"]) == ([5, 1], [50, 500])
    said = "staged:to_keep=5,1:n_samples=50,500:order=official"
    assert evaluate(place, *few, "--strategy", said).exit_code == 0


def test_a_preset_brings_its_prompts(place, tmp_path, preset):
    result = evaluate(place, "pair", "--data-dir", place, "--out", tmp_path / "run")
    assert_only_refused(result, "prompts for 10 classes", "pair has 2")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ([], ["preset", "--dataset"]),
        (["cifar11"], ["no preset 'cifar11'", "cifar10"]),
        (["cifar10", "--data-dir", "nowhere"], ["cifar10", "nowhere", "prepare"]),
        (["stl10", "--data-dir", "nowhere"], ["stl10", "tfds build stl10"]),
        (["--dataset", "./nowhere"], ["no folder nowhere"]),
        (["--dataset", "pair", "--subset", "0:9"], ["index 8"]),
        (["--dataset", "pair", "--strategy", "guess"], ["guess", "staged"]),
        (["--dataset", "pair", "--prompts", "no.csv"], ["no.csv"]),
        (
            ["--dataset", "pair", "--prompts", "mnist", "--template", "a {}"],
            ["--prompts and --template exclude"],
        ),
        (
            ["--dataset", "pair", "--classnames", "a.txt"],
            ["together with --templates"],
        ),
        (["--dataset", "pair", "--wandb", "project"], ["pip install wandb"]),
        (["--dataset", "pair", "--tensorboard", "x"], ["pip install tensorboardX"]),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_model_is_loaded(
    place, tmp_path, monkeypatch, args, parts
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.chdir(tmp_path)
    data = [] if "--data-dir" in args else ["--data-dir", place]
    result = evaluate(place, *args, *data, "--quiet", model="missing")
    assert_only_refused(result, *parts)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "x").exists()


# ---- class-conditional models


def test_a_class_conditional_model_decides_by_several_losses(place, tmp_path):
    out = tmp_path / "run"
    write_folder(tmp_path / "photos", {"class 1": 1, "class 7": 2})

    def run(*args):
        return evaluate(
            place,
            *("--dataset", tmp_path / "photos", "--strategy", STRATEGY),
            *("--also", "vlb", "--also", "l2+vlb", "--out", out, "--limit", "1", *args),
            model="dit",
        )

    result = run()
    assert result.exit_code == 0, result.output
    for metric in ("acc1", "acc1_vlb", "acc1_l2+vlb"):
        assert f"{metric} " in result.stdout
    found = read_run(out)
    assert found.prompts.prompts == ("class 1", "class 7")
    assert set(found.rows["prediction_vlb"].to_pylist()) <= {0, 1}
    assert "note: " not in result.stderr
    result = run("--template", "a {}", "--dry-run")
    assert "note: " in result.stderr and "prompts are not used" in result.stderr


def test_a_text_model_is_told_that_classes_are_numbers(place, tmp_path):
    write_folder(tmp_path / "digits", {"3": 1, "5": 1})

    def run(model, *args):
        return evaluate(
            place,
            *("--dataset", tmp_path / "digits", "--strategy", STRATEGY),
            *("--out", tmp_path / "run", "--dry-run", *args),
            model=model,
        )

    assert "such as 'a photo of a 3.'. Name them" in run("sd").stderr
    assert "Name them" not in run("sd", "--template", "the digit {}").stderr


def test_a_text_model_has_no_bound(place, tmp_path):
    result = photos(place, tmp_path / "run", "--also", "vlb", "--quiet")
    assert_only_refused(result, "vlb", "variance")


# ---- failures


@pytest.fixture
def broken(tmp_path):
    folder = write_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    (folder / "cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path


def test_failed_images_fail_the_command_unless_allowed(place, broken, tmp_path):
    def run(*args):
        return evaluate(
            place,
            *("--dataset", broken / "photos", "--strategy", STRATEGY),
            *("--out", tmp_path / "run", *args),
        )

    result = run("--json")
    assert result.exit_code == 2, result.output
    assert "error: 1 of 4 images failed; the first, image 1: " in result.stderr
    assert "1.png" in result.stderr and "--allow-errors" in result.stderr
    assert "1 failed" in result.stderr and "Traceback" not in result.output
    summary = json.loads(result.stdout)  # which is there all the same
    assert (summary["images"], summary["failed_images"]) == (3, 1)
    result = run("--allow-errors")
    assert result.exit_code == 0, result.output
    assert "3 of 4 were done before" in result.stderr
    assert "failed" in result.stdout


def test_a_full_disk_is_one_message(place, tmp_path, monkeypatch):
    out = tmp_path / "run"
    write_bytes = Path.write_bytes

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = photos(place, out, "--quiet")
    assert_only_refused(
        result, "5 rows cannot be written", out, "No space left", "goes on"
    )
    assert read_run(out).rows.num_rows == 0
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert photos(place, out).exit_code == 0


# ---- the plan


def test_a_dry_run_tells_the_cost_and_does_nothing(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_plan, plans = planning.make_plan, []

    def once(task, classifier):  # it compiles
        plans or plans.append(make_plan(task, classifier))
        return plans[0]

    monkeypatch.setattr(planning, "make_plan", once)
    args = ("--dataset", place / "photos", "--strategy", STRATEGY, "--dry-run")
    result = evaluate(place, *args, "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["images"] == 5 and plan["classes"] == plan["prompts"] == 2
    assert plan["evaluations_per_image"] == 4 and plan["evaluations"] == 20
    assert plan["flops"] == 5 * plan["flops_per_image"] > 0
    assert plan["model"] == str(place / "sd") and plan["out"] == "runs/photos-sd"
    assert plan["strategy"] == STRATEGY and plan["loss"] == "l2"
    assert plan["first_prompt"] == "a photo of a cat." and plan["expected"] is None
    result = evaluate(place, *args, "--tensorboard", tmp_path / "board")
    assert result.exit_code == 0, result.output
    for part in ("images    5", "FLOPs", "in all", "an image", "on 2 × cpu"):
        assert part in result.stdout
    assert "'a photo of a cat.' and 1 more" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"jax"}


# ---- trackers


def fake_wandb(log):
    run = types.SimpleNamespace(
        log=lambda values, step: log.append((step, values)),
        finish=lambda: log.append("finished"),
    )

    def init(**options):
        log.append(options)
        return run

    return types.SimpleNamespace(init=init)


def fake_tensorboard(log):
    class SummaryWriter:
        def __init__(self, folder):
            os.makedirs(folder)
            log.append(folder)

        def add_scalar(self, name, value, step):
            log.append((step, name, value))

        def close(self):
            log.append("closed")

    return types.SimpleNamespace(SummaryWriter=SummaryWriter)


def test_trackers_follow_a_run(place, tmp_path, monkeypatch):
    weights, board = [], []
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(weights))
    monkeypatch.setitem(sys.modules, "tensorboardX", fake_tensorboard(board))
    out = tmp_path / "run"
    # its folder may lie in the run's
    follow = ("--wandb", "project", "--tensorboard", out / "board")
    result = photos(place, out, *follow)
    assert result.exit_code == 0, result.output
    begun, first, last, finished = weights
    assert begun["project"] == "project"
    assert begun["config"]["dataset"] == str(place / "photos")
    assert begun["config"]["model"] == str(place / "sd")
    assert first == (0, {"failed": 0.0, "evaluations": 0.0})
    accuracy = json.loads((out / "summary.json").read_text())["metrics"]["acc1"]
    expected = {"accuracy": accuracy, "failed": 0.0, "evaluations": 20.0}
    assert last == (5, expected)
    assert finished == "finished"
    assert board[0] == str(out / "board") and board[-1] == "closed"
    assert (5, "accuracy", accuracy) in board
    assert photos(place, out, *follow[:2]).exit_code == 0  # and it goes on


def test_trackers_end_with_a_run_that_fails(place, tmp_path, monkeypatch):
    log = []
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(log))
    (tmp_path / "notes.txt").touch()
    photos(place, tmp_path, "--wandb", "project")
    assert log == []  # refused before anything was begun

    def fail(bar, tally):
        if tally.done == 1:
            raise OSError("the disk is gone")

    monkeypatch.setattr(Bar, "show", fail)
    result = photos(place, tmp_path / "run", "--wandb", "project")
    assert result.exit_code == 2 and log[-1] == "finished"


# ---- the help


def test_the_help_lists_the_presets():
    lines = invoke("evaluate", "--help", terminal_width=100).stdout.splitlines()
    for preset in presets.PRESETS.values():
        (line,) = (line for line in lines if line.startswith(f"  {preset.name} "))
        told, n_samples, paper = line.removeprefix(f"  {preset.name}").split(";")
        assert told.split() == [preset.dataset.partition("/")[0], preset.split]
        assert preset.strategy == f"racing:n_samples={int(n_samples)}:confidence=0.9"
        loss, keep, slash, seen = paper.split()
        assert (loss, slash) == (preset.loss, "/")
        assert preset.paper == f"staged:to_keep={keep}:n_samples={seen}:order=official"


# ---- kills


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_as_an_undisturbed_one(place, tmp_path):
    """Real processes, real SIGKILLs, at any moment of their lives."""
    n = 300
    for k in range(n):
        save(tmp_path / "many" / ("cat", "dog")[k % 2] / f"{k}.png", picture(k))
    # as `python -m diffjax`, but for the time between two flushes
    code = (
        "import sys, diffjax.cli, diffjax.evaluation.runner as runner\n"
        "runner.evaluate.__kwdefaults__['flush_seconds'] = 0.02\n"
        "sys.argv[0] = 'diffjax'\n"
        "diffjax.cli.main()\n"
    )
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }

    def start(out):
        command = [
            *(sys.executable, "-c", code, "evaluate", "--dataset", tmp_path / "many"),
            *("--strategy", STRATEGY, "--cells", "2", "--model", place / "sd"),
            *("--latent-cache", tmp_path / "latents", "--out", tmp_path / out),
        ]
        return subprocess.Popen(
            list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True
        )

    def done(out):
        return len(list((tmp_path / out / "parts").glob("*.parquet")))

    draw = random.Random(0)
    for more in (0, 1, 5, 20, 3):
        wanted = done("killed") + more
        process = start("killed")
        while done("killed") < wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1 if more else 4.0))  # 0: while it starts
        process.send_signal(signal.SIGKILL)
        process.communicate()
    killed = len(read_run(tmp_path / "killed").rows)
    assert 0 < killed < n, "the kills came too early or too late"
    process = start("killed")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"{killed} of {n} were done before" in errors
    process = start("whole")
    assert process.communicate() and process.returncode == 0

    rows, others = (read_run(tmp_path / out).rows for out in ("killed", "whole"))
    both = [t.drop_columns(["seconds"]).to_pylist() for t in (rows, others)]
    assert repr(both[0]) == repr(both[1])
    assert rows["index"].to_pylist() == list(range(n))
    parts = (tmp_path / "killed" / "parts").iterdir()
    assert sum(pq.read_metadata(part).num_rows for part in parts) == n
    assert len(np.unique(rows["prediction"])) == 2, "nothing to tell apart"
