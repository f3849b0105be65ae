import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_rescoring import assert_same_decisions

from diffjax.cli.commands import group
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import read_run
from diffjax.runs.official_dit import holds_dit, import_dit, read_labels
from diffjax.runs.rescoring import rescore
from diffjax.strategies.exhaustive import Exhaustive

PROMPTS = Prompts.from_labels([f"class {c}" for c in range(8)])
CLASSES = [1, 4, 6]
LABELS = np.array([1, 4, 6, 1, 5])


def write_results(folder, *, interval=100, trials=2, end="", split="", losses=4):
    """Errors [image, class, T / interval, trials, loss] of four images."""
    rng = np.random.default_rng(0)
    shape = (4, len(CLASSES), 1000 // interval, trials, losses)
    errors = rng.random(shape).astype(np.float32)
    for i in range(4):
        errors[i, CLASSES.index(LABELS[i])] -= 0.2
    for k, c in enumerate(CLASSES):
        path = folder / f"DiT256x256_cls{c}_t{interval}_{trials}trials{end}" / split
        path.mkdir(parents=True)
        for i in range(4):
            torch.save(torch.tensor(errors[i, k]).squeeze(-1), path / f"{i}.pt")
    return errors


def predictions(tables):
    """The class with the smallest mean error."""
    means = tables.astype(np.float64).reshape(4, len(CLASSES), -1).mean(axis=2)
    return np.array(CLASSES)[means.argmin(axis=1)].tolist()


@pytest.mark.parametrize("interval", [100, 1])
def test_all_losses_decide_as_the_authors_do(tmp_path, interval):
    folder = tmp_path / "imagenet"
    errors = write_results(folder, interval=interval, end="_randnoise", split="test")
    run = import_dit(folder, tmp_path / "run", PROMPTS, LABELS)
    l2, l1, kl, nll = np.moveaxis(errors, -1, 0)
    vlb = kl.copy()
    if interval == 1:
        vlb[:, :, 0] = nll[:, :, 0]
    rows = run.rows
    assert rows["prediction"].to_pylist() == predictions(l2)
    for loss, table in [("l1", l1), ("vlb", vlb), ("l2+vlb", l2 + vlb)]:
        assert rows[f"prediction_{loss}"].to_pylist() == predictions(table)
        again = [row["prediction"] for row in rescore(run, loss=loss).rows]
        assert again == predictions(table)
    assert_same_decisions(rescore(run), run)
    row = rows.to_pylist()[2]
    grid = np.arange(interval // 2, 1000, interval)
    assert row["timesteps"] == np.repeat(grid, 2).tolist()
    assert row["noises"] == list(range(2 * len(grid)))
    assert (row["label"], row["evaluations"]) == (6, 3 * 2 * len(grid))
    assert run.header["classes"] == CLASSES and len(run.class_names) == 8
    assert run.prompts == PROMPTS.restricted(CLASSES)
    assert run.header["data"]["name"] == "imagenet"


def test_squared_errors_alone(tmp_path):
    errors = write_results(tmp_path / "a", losses=1)
    run = import_dit(tmp_path / "a", tmp_path / "run", PROMPTS, LABELS)
    assert run.rows["prediction"].to_pylist() == predictions(errors)
    assert run.rows["noises"].to_pylist()[0] == [0, 1] * 10
    assert run.losses == ()
    few = rescore(run, strategy=Exhaustive(n_samples=4))
    assert {row["evaluations"] for row in few.rows} == {12}


def test_broken_images_are_counted_and_left_out(tmp_path):
    folder = tmp_path / "a"
    write_results(folder)
    first, second, third = sorted(folder.iterdir())
    (second / "0.pt").unlink()
    (third / "1.pt").write_bytes(b"nothing")
    torch.save(torch.zeros(10, 2), first / "2.pt")
    torch.save(torch.zeros(3, 2), third / "3.pt")
    for path in (first, second, third):
        for i in (4, 5):
            torch.save(torch.rand(10, 2, 4), path / f"{i}.pt")
    torch.save(torch.full((10, 2, 4), torch.nan), first / "4.pt")
    run = import_dit(folder, tmp_path / "run", PROMPTS, np.append(LABELS, 7))
    errors = run.rows["error"].to_pylist()
    assert errors[5] is None
    expected = ["no result for class 4", "damaged", "shape", "shape", "not finite"]
    for error, text in zip(errors, expected, strict=False):
        assert text in error, error
    run = import_dit(folder, tmp_path / "b", PROMPTS, np.array([0, 0, 0, 0, 0, 1]))
    assert run.rows["prediction"].to_pylist()[5] in CLASSES


def test_labels_are_checked(tmp_path):
    write_results(tmp_path / "a")
    strange = np.where(np.arange(5) == 1, 13, LABELS)
    for labels, message in [(LABELS[:1], "no label"), (strange, "label 13")]:
        out = tmp_path / str(len(labels))
        run = import_dit(tmp_path / "a", out, PROMPTS, labels)
        assert run.rows["error"].to_pylist()[0] is None
        assert message in run.rows["error"].to_pylist()[1]
    np.save(tmp_path / "floats.npy", np.zeros(3))
    np.save(tmp_path / "square.npy", np.zeros((3, 3), int))
    np.save(tmp_path / "objects.npy", np.array([{}]))
    (tmp_path / "text.npy").write_text("1 2 3")
    for name in ("floats", "square", "objects", "text", "none"):
        with pytest.raises(DiffjaxError, match=rf"{name}\.npy"):
            read_labels(tmp_path / f"{name}.npy")


def test_what_does_not_belong_together_is_refused(tmp_path):
    def refused(name, message, prompts=PROMPTS):
        with pytest.raises(DiffjaxError, match=message):
            import_dit(tmp_path / name, tmp_path / "run", prompts, LABELS)

    write_results(tmp_path / "a")
    refused("a", "one prompt for each", Prompts.from_labels(["a", "b"], ["{}", "a {}"]))
    refused("a", "do not have", Prompts.from_labels(["a", "b"]))
    (tmp_path / "a" / "DiT256x256_cls7_t50_2trials").mkdir()
    refused("a", "other settings")
    write_results(tmp_path / "b", end="_eps")
    refused("b", "whole predictions")
    (tmp_path / "c" / "DiT256x256_cls7_t50_2trials").mkdir(parents=True)
    refused("c", "of 1 classes")
    (tmp_path / "c" / "DiT256x256_cls6_t50_2trials").mkdir()
    refused("c", "no files like")
    for c in (1, 2):
        (tmp_path / "d" / f"DiT256x256_cls{c}_t7_2trials").mkdir(parents=True)
    refused("d", "does not divide")
    assert not (tmp_path / "run").exists()
    assert holds_dit(tmp_path / "a") and not holds_dit(tmp_path)


def test_the_command(tmp_path):
    write_results(tmp_path / "imagenetv2")
    PROMPTS.write_csv(tmp_path / "prompts.csv")
    np.save(tmp_path / "labels.npy", LABELS)
    args = ["import", tmp_path / "imagenetv2", "--prompts", tmp_path / "prompts.csv"]
    args = [str(arg) for arg in [*args, "--out", tmp_path / "run", "--json"]]
    refused = CliRunner().invoke(group, args)
    assert refused.exit_code == 2 and "--labels" in refused.stderr
    args += ["--labels", str(tmp_path / "labels.npy")]
    done = CliRunner().invoke(group, args)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result["metrics"]) >= {"acc1", "acc1_l1", "acc1_vlb", "acc1_l2+vlb"}
    assert read_run(tmp_path / "run").header["data"]["name"] == "imagenetv2"
    args[1] = str(tmp_path)
    refused = CliRunner().invoke(group, args)
    assert refused.exit_code == 2 and "leave out --labels" in refused.stderr
