"""Samples learned from tables in which it is known which ones tell classes apart."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import tables, write_run

from diffjax.classify.samples import (
    LearnedSamples,
    few_shot,
    file_digest,
    read_samples,
    write_samples,
)
from diffjax.classify.settings import Settings, settings_from
from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.report.compare import read_report
from diffjax.report.crosstable import cross_table
from diffjax.runs.folder import read_run
from diffjax.runs.learning import (
    choose,
    curve,
    folds,
    learn_samples,
    read_examples,
)
from diffjax.runs.metrics import summary
from diffjax.runs.rescoring import rescore
from diffjax.runs.studies import read_errors
from diffjax.runs.weights import learn
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

TELLING = [3, 8, 14]  # of 20 samples
SHARED = {"experiment": {"noise": "shared", "seed": 5, "resolution": 8}}


def informative(n=300, C=4, S=20, seed=0):
    """Errors [n, C, S] in which only a few samples know the label."""
    rng = np.random.default_rng(seed)
    errors = rng.standard_normal((n, 1, S)) + 0.5 * rng.standard_normal((n, C, S))
    labels = rng.integers(0, C, n)
    for s in TELLING:
        errors[np.arange(n), labels, s] -= 0.7
    return errors.astype(np.float32), labels


def shared_run(path, errors, labels, **more):
    return write_run(path, errors, labels, header=SHARED, **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return shared_run(tmp_path_factory.mktemp("runs") / "train", *informative())


def test_the_samples_that_tell_are_found(run):
    samples, rows = learn_samples(run, count=3)
    assert sorted(samples.timesteps) == TELLING
    assert samples.timesteps == samples.noises  # as the run has numbered them
    assert np.mean(samples.weights) == pytest.approx(1)
    assert list(samples.weights) == sorted(samples.weights, reverse=True)
    at = {row["samples"]: row for row in rows}
    assert at[3]["learned"] > at[3]["even"] + 0.15
    low, high = at[3]["learned_interval"]
    assert low < at[3]["learned"] < high
    assert samples.accuracy["cross_validated"] == at[3]["learned"]
    assert samples.seed == 5 and samples.noise == "shared"
    # one more tells no more, so that none is asked for
    assert sorted(learn_samples(run)[0].timesteps) == TELLING


def test_no_image_has_a_say_in_its_own_decision():
    """Without anything to learn, accuracy is chance, however many samples there are."""
    rng = np.random.default_rng(1)
    errors = rng.standard_normal((200, 4, 100)).astype(np.float32)
    labels = rng.integers(0, 4, 200)
    errors[np.arange(200), labels] -= 0.02  # else no temperature fits
    examples = _examples(errors, labels)
    [row] = [row for row in curve(examples, 5) if row["samples"] == 5]
    assert row["learned"] < 0.36
    dealt = folds(labels)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(200))
    counts = np.array([np.bincount(labels[fold], minlength=4) for fold in dealt])
    assert (np.ptp(counts, axis=0) <= 1).all()


def _examples(errors, labels):
    from diffjax.runs.learning import Examples
    from diffjax.strategies.base import Samples

    excess = np.stack(
        [np.delete(e, y, axis=0) - e[y] for e, y in zip(errors, labels, strict=True)]
    ).astype(float)
    places = np.arange(errors.shape[2])
    return Examples(
        excess=excess, labels=labels, samples=Samples(timesteps=places, noises=places)
    )


def test_the_fit_is_convex_and_at_its_bottom(run):
    """Written out again, what is minimised rises to all sides of the weights."""
    excess = read_examples(run).excess[:, :, TELLING] / 3
    tau = _temperature(excess.sum(axis=2))

    def objective(v):
        odds = np.exp(-excess @ v / tau).sum(axis=1)
        return np.log1p(odds).sum() + ((v - 1) ** 2).sum() / 2

    v = learn(excess)
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = np.maximum(v + rng.normal(0, 0.2, 3), 0)
        assert objective(other) > objective(v) - 1e-6
        middle = objective((v + other) / 2)
        assert middle <= (objective(v) + objective(other)) / 2 + 1e-9


def _temperature(excess):
    grid = np.geomspace(1e-3, 1e2, 20_000)
    x = np.stack([np.log1p(np.exp(-excess / t).sum(axis=1)).mean() for t in grid])
    return grid[x.argmin()]


def test_classes_of_a_run_alone_are_learned_from(run):
    examples = read_examples(run)
    some = examples.among([0, 2])
    errors, labels = informative()
    mine = np.isin(labels, [0, 2])
    assert some.labels.tolist() == labels[mine].tolist()
    other = np.where(labels[mine] == 0, 2, 0)
    n = np.flatnonzero(mine)
    expected = errors[n, other].astype(float) - errors[n, labels[mine]]
    np.testing.assert_allclose(some.excess[:, 0], expected)
    [samples, _] = learn_samples(run, count=3, classes=(0, 2))
    assert samples.learned_on["classes"] == ["class 0", "class 2"]
    assert samples.learned_on["images"] == mine.sum()


def test_each_choice_adds_a_sample(run):
    choices = choose(read_examples(run).excess, 4)
    sets = [set(choice.samples.tolist()) for choice in choices]
    assert [len(each) for each in sets] == [1, 2, 3, 4]
    assert sets[0] < sets[1] < sets[2] < sets[3]


# ---- what is refused


def test_what_nothing_can_be_learned_of_is_refused(tmp_path):
    errors, labels = informative(20)
    own = write_run(tmp_path / "own", errors, labels)
    with pytest.raises(DiffjaxError, match=r"noise of its own.*--noise shared"):
        learn_samples(own)
    bare = shared_run(tmp_path / "bare", errors, labels, save_errors=False)
    with pytest.raises(DiffjaxError, match="--save-errors"):
        learn_samples(bare)
    staged = Staged(to_keep=(2, 1), n_samples=(4, 20), order="nested")
    pruned = shared_run(tmp_path / "pruned", errors, labels, strategy=staged)
    with pytest.raises(DiffjaxError, match="not every class was evaluated"):
        learn_samples(pruned)
    few = shared_run(tmp_path / "few", errors[:3], labels[:3])
    with pytest.raises(DiffjaxError, match="has 3 images"):
        learn_samples(few)
    good = shared_run(tmp_path / "good", errors, labels)
    with pytest.raises(DiffjaxError, match="choose 1 to 20"):
        learn_samples(good, count=21)
    file = {"experiment": SHARED["experiment"] | {"noise": "sha256 0123456789abcdef"}}
    noisy = write_run(tmp_path / "file", errors, labels, header=file)
    with pytest.raises(DiffjaxError, match="--noise FILE"):
        learn_samples(noisy)
    (tmp_path / "other.npy").write_bytes(b"other")
    with pytest.raises(DiffjaxError, match="does not hold the noise"):
        learn_samples(noisy, noise_file=tmp_path / "other.npy")
    with pytest.raises(DiffjaxError, match=r"no file .*missing\.npy"):
        learn_samples(noisy, noise_file=tmp_path / "missing.npy")
    lopsided = shared_run(tmp_path / "lopsided", errors, [0, 1] * 2 + [2, 3] * 8)
    with pytest.raises(DiffjaxError, match="has 4 images"):
        learn_samples(lopsided, classes=(0, 1))


# ---- the file


def made(**changes):
    known = {
        "timesteps": (8, 3, 14),
        "noises": (8, 3, 14),
        "weights": (1.5, 1.0, 0.5),
        "noise": "shared",
        "seed": 5,
        "noise_file": None,
        "loss": "l2",
        "space": "noise",
        "temperature": 0.25,
        "model": {"name": "small", "fingerprint": "0" * 16},
        "resolution": 8,
        "learned_on": {"data": "made test", "images": 300, "classes": ["a", "b"]},
        "accuracy": {"cross_validated": 0.9, "interval": [0.8, 0.95], "folds": 5},
    }
    return LearnedSamples(**(known | changes))


def test_the_file_comes_back_as_it_was(tmp_path):
    write_samples(tmp_path / "a.json", made())
    assert read_samples(tmp_path / "a.json") == made()
    noises = tmp_path / "a.safetensors"
    noises.write_bytes(b"noises")
    own = made(noise=f"sha256 {file_digest(noises)}", noise_file=str(noises))
    write_samples(tmp_path / "a.json", own)
    assert "tmp" not in (tmp_path / "a.json").read_text()  # its place is beside
    assert read_samples(tmp_path / "a.json") == own
    noises.write_bytes(b"other noises")
    with pytest.raises(DiffjaxError, match="is another file"):
        read_samples(tmp_path / "a.json")
    noises.unlink()
    with pytest.raises(DiffjaxError, match="is missing"):
        read_samples(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "other"}, "holds no learned samples"),
        ({"weights": [1, 2]}, "as many"),
        ({"weights": [1, 2, 0]}, "above 0"),
        ({"weights": [1, 2, "x"]}, "above 0"),
        ({"timesteps": [1, 2, -3]}, "whole numbers"),
        ({"timesteps": [8, 8, 8], "noises": [1, 1, 2]}, "twice"),
        ({"temperature": 0}, "temperature"),
        ({"model": {}}, "name"),
        ({"learned_on": []}, "damaged"),
    ],
)
def test_a_damaged_file_is_told_of(tmp_path, change, told):
    write_samples(tmp_path / "a.json", made())
    told_before = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(told_before | change))
    with pytest.raises(DiffjaxError, match=told):
        read_samples(tmp_path / "a.json")


def test_settings_are_those_of_the_samples(tmp_path):
    write_samples(tmp_path / "a.json", made())
    settings = settings_from({"samples": str(tmp_path / "a.json")}, "small")
    assert (settings.noise, settings.seed, settings.temperature) == ("shared", 5, 0.25)
    assert settings.as_dict()["samples"]["weights"] == [1.5, 1.0, 0.5]
    assert "few-shot (samples learned on 300 images of made test)" in repr(
        settings.in_short()
    )
    assert few_shot(Settings().as_dict()) is None
    on = {"data": "made test", "images": 9, "data_fingerprint": "1" * 16}
    same = {"samples": {"learned_on": on}}
    assert "images in both flatter it" in few_shot(same, "1" * 16)
    assert "flatter" not in few_shot(same, "2" * 16) + few_shot(same)
    for change, told in (
        ({"loss": "l1"}, "--loss l2"),
        ({"space": "data"}, "l2 of data is asked for"),
        ({"seed": 3}, "seed 3"),
        ({"noise": "other.npy"}, "leave --noise"),
    ):
        with pytest.raises(DiffjaxError, match=told):
            settings_from({"samples": made()} | change, "small")
    with pytest.raises(DiffjaxError, match=r"small.*and this is other"):
        made().check("other", "1" * 16, 8, 20)
    with pytest.raises(DiffjaxError, match="--resolution 8"):
        made().check("small", "0" * 16, 16, 20)
    with pytest.raises(DiffjaxError, match=r"timestep 14, and small knows 0 to 13"):
        made().check("small", "0" * 16, 8, 14)


# ---- strategies on given samples


@pytest.mark.parametrize(
    ("strategy", "ends"),
    [
        (Exhaustive(), (3,)),
        (Exhaustive(n_samples=2), (2,)),
        (Racing(floor=2, chunk=1), (2, 3)),
        (Staged(to_keep=(2, 1), n_samples=(1, 3)), (1, 3)),
    ],
)
def test_strategies_take_given_samples_as_they_come(strategy, ends):
    given = made().samples
    state = strategy.start(4, 1000, given=given)
    assert state.ends == ends
    n = ends[-1]
    assert state.samples.timesteps.tolist() == [8, 3, 14][:n]
    w = np.array([1.5, 1.0, 0.5][:n])
    np.testing.assert_allclose(state.samples.weights, w / w.mean())


def test_strategies_that_make_no_sense_of_them_say_so():
    given = made().samples
    with pytest.raises(DiffjaxError, match=r"there are 3 learned ones.*n_samples=1,3"):
        Staged().start(10, 1000, given=given)
    with pytest.raises(DiffjaxError, match="Leave n_trials out"):
        Exhaustive(n_trials=2).start(4, 1000, given=given)


# ---- runs by them


@pytest.fixture
def decided(tmp_path):
    """A run by learned samples, with errors, as a header of them says it."""
    errors, labels = tables(40, 4, 20, gap=0.3, noise=0.5)
    weights = np.random.default_rng(0).gamma(1.0, size=20)
    samples = made(
        timesteps=tuple(range(20)),
        noises=tuple(range(20)),
        weights=tuple(weights / weights.mean()),
    )
    header = {"experiment": SHARED["experiment"] | {"samples": samples.as_dict()}}
    run = write_run(tmp_path / "few", errors, labels, header=header)
    return run, errors, labels, weights


def test_rescoring_keeps_the_weights_of_a_run(decided):
    run, errors, _, weights = decided
    again = rescore(run)
    means = np.average(errors.astype(float), axis=2, weights=weights)
    assert [row["prediction"] for row in again.rows] == means.argmin(axis=1).tolist()
    assert again.settings["weights"] == "samples"
    plain = rescore(run, weights="uniform")
    expected = errors.mean(axis=2, dtype=float).argmin(axis=1).tolist()
    assert [row["prediction"] for row in plain.rows] == expected


def test_a_run_by_learned_samples_says_few_shot_wherever_it_is_shown(decided, tmp_path):
    run, errors, labels, _ = decided
    words = "few-shot (samples learned on 300 images of made test)"
    figures = summary(run)
    assert figures["few_shot"] == words
    assert figures["task"] == "fewshot_classification"
    assert words in repr(run)
    other = write_run(tmp_path / "zero", errors, labels)
    assert summary(other)["task"] == "zeroshot_classification"
    assert "few-shot" not in repr(other)
    paths = [str(run.path), str(other.path)]
    page = tmp_path / "page.html"
    for arguments in (["report", *paths], ["report", *paths, "--html", str(page)]):
        done = CliRunner().invoke(group, arguments, env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        assert "few-shot" in done.output or "few-shot" in page.read_text()
    assert words in page.read_text()
    groups = read_report([run.path, other.path]).groups
    assert any("does not compare with zero-shot" in n for n in groups[0].notes)
    assert sorted(cross_table(groups).rows) == ["small", "small, few-shot"]
    with pytest.raises(DiffjaxError, match="few-shot"):
        read_errors(run)


def test_the_command_writes_samples_a_table_and_a_picture(run, tmp_path):
    out, picture = tmp_path / "samples.json", tmp_path / "curve.png"
    arguments = ["learn", str(run.path), "-o", str(out), "--plot", str(picture)]
    done = CliRunner().invoke(group, [*arguments, "--most", "4"])
    assert done.exit_code == 0, done.output
    assert "few-shot" in done.output and "300 images of made test" in done.output
    assert sorted(read_samples(out).timesteps) == TELLING
    assert picture.read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(group, [*arguments, "--json", "--count", "2"])
    told = json.loads(done.stdout)
    assert len(told["samples"]["timesteps"]) == 2
    assert [row["samples"] for row in told["curve"]][:2] == [1, 2]


def test_the_command_refuses_what_it_would_not_use_before_it_learns(run, tmp_path):
    out = tmp_path / "samples.json"
    for more, told in (
        (["--plot", str(tmp_path / "curve.xyz")], "must end in one of .png"),
        (["--steps", "5"], "Only --noises uses --steps"),
    ):
        arguments = ["learn", str(run.path), "-o", str(out), *more]
        done = CliRunner().invoke(group, arguments)
        assert (done.exit_code, out.exists()) == (2, False), done.output
        assert told in done.output
    assert read_run(run.path).path == run.path and replace(made()) == made()
