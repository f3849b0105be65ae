import io
import json
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pickles import Evil
from saved_runs import decided, tables
from test_rescoring import assert_same_decisions

from diffjax.cli.commands import group
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import read_run
from diffjax.runs.official import import_results, read_result, settings_of
from diffjax.runs.rescoring import rescore
from diffjax.strategies import strategy_from_dict
from diffjax.strategies.staged import Staged, official

NAME = "v2-0_1trials_3_1keep_4_10samples_l1"
CLASSIDX = [0, 1, 2, 2, 1, 0]
PROMPTS = Prompts(
    prompts=tuple(f"prompt {p}" for p in range(6)),
    classidx=tuple(CLASSIDX),
    class_names=("cat", "dog", "horse"),
)


def staged_result(table, to_keep, n_samples, n_trials=1):
    """An image's errors as the program stores them, and the winning prompt.

    table: errors [P, T, n_trials]. Written from the description in the paper, apart
    from the package's strategies.
    """
    stages = official(n_samples, table.shape[1])
    living, data = list(range(len(table))), {}
    for timesteps, keep in zip(stages, to_keep, strict=True):
        for p in living:
            seen = data.setdefault(p, {"t": [], "pred_errors": []})
            seen["t"] += [t for t in timesteps.tolist() for _ in range(n_trials)]
            seen["pred_errors"] += table[p, timesteps].ravel().tolist()
        means = {p: torch.tensor(data[p]["pred_errors"]).mean().item() for p in living}
        living = sorted(living, key=means.get)[:keep]
    stored = {
        p: {"t": torch.tensor(d["t"]), "pred_errors": torch.tensor(d["pred_errors"])}
        for p, d in data.items()
    }
    return stored, living[0]


def write_results(folder, n=12, *, to_keep=(3, 1), n_samples=(4, 10), n_trials=1):
    """n images of six prompts for three classes; tables of errors and labels."""
    folder.mkdir(parents=True)
    errors, rows = tables(n * n_trials, 6, 1000)
    errors = errors.reshape(n, n_trials, 6, 1000).transpose(0, 2, 3, 1)
    labels = np.array(CLASSIDX)[rows[:n]]
    for i in range(n):
        stored, winner = staged_result(errors[i], to_keep, n_samples, n_trials)
        result = {
            "errors": stored,
            "pred": np.asarray(CLASSIDX)[winner],  # a numpy number, as pandas gives
            "label": int(labels[i]),
        }
        torch.save(result, folder / f"{i:04d}.pt")
    return errors, labels


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pets_blurry" / NAME
    write_results(path)
    return path


def test_import_and_rescore_reproduce_the_predictions(tmp_path):
    folder = tmp_path / "pets" / NAME
    errors, labels = write_results(folder)
    run = import_results(folder, tmp_path / "run", PROMPTS)
    strategy = Staged(to_keep=(3, 1), n_samples=(4, 10))
    classidx, classes = np.array(CLASSIDX), np.arange(3)
    for i, row in enumerate(run.rows.to_pylist()):
        table = errors[i, :, :, 0]
        expected = decided(table, strategy, 1000, classidx, classes, True)
        stored = torch.load(folder / f"{i:04d}.pt", weights_only=False)
        assert row["prediction"] == stored["pred"] == expected["prediction"]
        assert (row["index"], row["id"], row["label"]) == (i, f"{i:04d}.pt", labels[i])
        for column in ("ranking", "timesteps", "noises", "n_samples"):
            assert row[column] == list(expected[column])
        np.testing.assert_array_equal(row["errors"], expected["errors"])
        assert row["evaluations"] == expected["evaluations"]
        assert row["seconds"] is None
    assert_same_decisions(rescore(run), run)
    assert run.header["data"]["n"] == 12 and run.header["data"]["name"] == "pets"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["images"] == 12


def test_several_noises_and_stages_that_overlap(tmp_path):
    folder = tmp_path / "food" / "v1-5_2trials_4_2_1keep_3_7_20samples_256"
    write_results(folder, 4, to_keep=(4, 2, 1), n_samples=(3, 7, 20), n_trials=2)
    named = {"dataset": "other", "split": "val"}
    run = import_results(folder, tmp_path / "run", PROMPTS, **named)
    assert_same_decisions(rescore(run), run)
    row = run.rows.to_pylist()[0]
    assert row["timesteps"][::2] == row["timesteps"][1::2]
    assert row["noises"] == list(range(len(row["timesteps"])))
    seen = (~np.isnan(np.reshape(row["errors"], (6, -1)))).sum(axis=1)
    assert set(seen) == {2 * 3, 2 * 8, 2 * 20}  # 7 and one of the first stage's
    assert run.header["data"] | {"name": "other", "split": "val"} == run.header["data"]


def test_the_folder_tells_the_settings():
    experiment, model = settings_of("v2-1_3trials_20_5_1keep_20_50_500samples")
    assert strategy_from_dict(experiment["strategy"]) == Staged(
        to_keep=(20, 5, 1), n_samples=(20, 50, 500), n_trials=3
    )
    assert (experiment["loss"], experiment["resolution"]) == ("l2", 512)
    assert experiment["interpolation"] == "bicubic"
    assert model["name"] == "sd-2.1-base" and model["n_timesteps"] == 1000
    experiment, _ = settings_of("v1-1_1trials_5_1keep_50_500samples_lanczos_huber_256")
    assert (experiment["loss"], experiment["resolution"]) == ("huber", 256)
    assert experiment["interpolation"] == "lanczos"
    for name in ("results", "v2-0_1trials_5_1keep_50_500samples_zeros"):
        with pytest.raises(DiffjaxError, match="does not tell how"):
            settings_of(name)


def rewrite(file, **changes):
    torch.save(torch.load(file, weights_only=False) | changes, file)


def test_broken_files_are_counted_and_left_out(folder, tmp_path):
    (folder / "0000.pt").write_bytes(b"")
    (folder / "0001.pt").write_bytes((folder / "0001.pt").read_bytes()[:500])
    torch.save([1, 2], folder / "0002.pt")
    rewrite(folder / "0003.pt", label=3)
    good = torch.load(folder / "0004.pt", weights_only=False)
    rewrite(folder / "0004.pt", pred=(good["pred"] + 1) % 3)
    for number, change in [("0005", np.nan), ("0006", np.inf)]:
        stored = torch.load(folder / f"{number}.pt", weights_only=False)["errors"]
        stored[2]["pred_errors"][1] = change
        rewrite(folder / f"{number}.pt", errors=stored)
    stored = torch.load(folder / "0007.pt", weights_only=False)["errors"]
    stored[2]["t"][1] += 1
    rewrite(folder / "0007.pt", errors=stored)
    torch.save({**good, "label": Evil(tmp_path / "trace")}, folder / "0008.pt")

    run = import_results(folder, tmp_path / "run", PROMPTS)
    errors = run.rows["error"].to_pylist()
    assert errors[9:] == [None] * 3
    expected = [
        *("damaged", "damaged", "not a result", "label 3", "predicts the class"),
        *("not finite", "not finite", "other timesteps", "Nothing in it was run"),
    ]
    for i, text in enumerate(expected):
        assert text in errors[i] and f"{i:04d}.pt" in errors[i], errors[i]
    assert not (tmp_path / "trace").exists()
    assert run.rows["prediction"].to_pylist()[:9] == [None] * 9


def test_the_wrong_prompts_are_refused_at_once(folder, tmp_path):
    fewer = Prompts.from_labels(["cat", "dog"])
    with pytest.raises(DiffjaxError, match=r"None of the 12.*6 prompts, but 2 were"):
        import_results(folder, tmp_path / "a", fewer)


def test_a_tie_is_decided_as_in_the_file(folder):
    stored = torch.load(folder / "0000.pt", weights_only=False)["errors"]
    complete = [p for p in stored if len(stored[p]["t"]) == 10]
    best = min(complete, key=lambda p: stored[p]["pred_errors"].double().mean())
    other = next(p for p in stored if CLASSIDX[p] != CLASSIDX[best])
    stored[other] = {k: v.clone() for k, v in stored[best].items()}
    for prediction in (CLASSIDX[best], CLASSIDX[other]):
        rewrite(folder / "0000.pt", errors=stored, pred=np.int64(prediction))
        out = folder.parent / str(prediction)
        run = import_results(folder, out, PROMPTS)
        assert run.rows["error"].to_pylist()[0] is None
        assert run.rows["prediction"].to_pylist()[0] == prediction


def test_numbers_of_older_numpy(folder):
    """numpy 1 called the module of its numbers numpy.core, not numpy._core."""
    file = folder / "0000.pt"
    before = read_result(file, 6)
    old, buffer = zipfile.ZipFile(file), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core", b"numpy.core"))
    assert file.read_bytes() != buffer.getvalue()
    file.write_bytes(buffer.getvalue())
    after = read_result(file, 6)
    assert (after.prediction, after.label) == (before.prediction, before.label)


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", ">i8"])
def test_other_integers(folder, kind):
    rewrite(
        folder / "0000.pt", pred=np.array(300 % 128, kind)[()], label=torch.tensor(2)
    )
    result = read_result(folder / "0000.pt", 6)
    assert (result.prediction, result.label) == (44, 2)


def test_what_is_no_integer_is_refused(folder):
    for number in (np.float64(1), np.complex64(1)):
        rewrite(folder / "0000.pt", pred=number)
        with pytest.raises(DiffjaxError, match="damaged"):
            read_result(folder / "0000.pt", 6)


def invoke(*args):
    return CliRunner().invoke(group, [str(arg) for arg in args])


def test_the_command(folder, tmp_path):
    PROMPTS.write_csv(tmp_path / "prompts.csv")
    out = tmp_path / "run"
    args = ("import", folder, "--prompts", tmp_path / "prompts.csv", "--out", out)
    done = invoke(*args)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"12 images written to {out}: accuracy")
    assert read_run(out).header["data"]["name"] == "pets_blurry"
    again = json.loads(invoke(*args, "--json").stdout)  # done already: no row twice
    assert again["images"] == 12

    (folder / "0003.pt").write_bytes(b"")
    args = (*args[:-1], tmp_path / "new")
    done = invoke(*args)
    assert done.exit_code == 2 and "0003.pt" in done.stderr
    assert done.stdout.startswith("11 images")
    done = invoke(*args, "--allow-errors")
    assert done.exit_code == 0 and done.stderr.startswith("note: ")


def test_folders_without_results_are_refused(tmp_path):
    PROMPTS.write_csv(tmp_path / "prompts.csv")
    args = ("--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "run")
    for place, message in [("none", "not a folder"), (".", "no results")]:
        done = invoke("import", tmp_path / place, *args)
        assert done.exit_code == 2 and message in done.stderr
    assert not (tmp_path / "run").exists()


def test_without_torch_the_remedy_is_given(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(DiffjaxError, match=r'pip install "diffjax\[torch\]"'):
        import_results(folder, tmp_path / "run", PROMPTS)
