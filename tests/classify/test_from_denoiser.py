"""Denoisers that are not ours: of known answer, and of other libraries."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from noise_runs import Made, task_of
from scipy.special import logsumexp

from diffjax import DiffusionClassifier, Schedule
from diffjax.classify.settings import Settings
from diffjax.errors import DiffjaxError
from diffjax.evaluation.runner import evaluate
from diffjax.models import own
from diffjax.models.own import live_bytes
from diffjax.runs.folder import read_run
from diffjax.schedules import add_noise
from diffjax.tracing import program

EDGE = 4
SHAPE = (EDGE, EDGE, 3)
SIZE = EDGE * EDGE * 3
NAMES = ["ring", "cross", "stripe"]
VARIANCE = 0.02  # of every component
T = Schedule.named("linear")
# [class, component, h, w, c]: a class is a mixture of two, or of one twice
MEANS = np.random.default_rng(0).uniform(-0.25, 0.25, (3, 2, *SHAPE)).astype("f4")


def mixture_noise(schedule, z_t, t, means):
    """E[ε | z_t] if z0 is of a mixture of Gaussians with these means."""
    a, s = schedule.signal[t], schedule.sigma[t]
    total = a * a * VARIANCE + s * s
    apart = z_t - a * means
    weights = jax.nn.softmax(-jnp.square(apart).sum(axis=(1, 2, 3)) / (2 * total))
    return s / total * jnp.einsum("k,khwc->hwc", weights, apart)


def told_what(schedule, means):
    """What the schedule's network predicts, of what it is told, exactly."""
    flow = schedule.prediction_type == "flow"

    def predict(z_t, time, means):
        t = time.astype(jnp.int32) - 1 if flow else time  # T σ is 1 at t = 0
        noise = mixture_noise(schedule, z_t, t, means)
        if not flow:
            return noise
        a, s = schedule.signal[t], schedule.sigma[t]
        return noise - (z_t - s * noise) / jnp.maximum(a, 1e-3)

    return predict


def mixtures(schedule=T, means=MEANS, **options):
    return DiffusionClassifier.from_denoiser(
        told_what(schedule, means),
        schedule,
        SHAPE,
        jnp.asarray(means),
        name="mixture",
        class_names=NAMES,
        **options,
    )


def drawn(seed, n, means=MEANS):
    """Images of the mixtures, rounded to 8 bits, and their log p(class | image)."""
    rng = np.random.default_rng(seed)
    z0 = means[rng.integers(0, 3, n), rng.integers(0, 2, n)]
    z0 = z0 + np.sqrt(VARIANCE) * rng.standard_normal(z0.shape)
    images = np.clip(np.rint((z0 + 1) * 127.5), 0, 255).astype(np.uint8)
    seen = images / 127.5 - 1
    square = np.square(seen[:, None, None] - means).sum(axis=(3, 4, 5))
    joint = logsumexp(-square / (2 * VARIANCE), axis=2)
    return list(images), joint - logsumexp(joint, axis=1, keepdims=True)


def test_differences_are_those_of_the_closed_form():
    """ε − ε̂_c = A ε + B (z0 − μ_c) of a single Gaussian, so Δ is known."""
    means = np.repeat(MEANS[:, :1], 2, axis=1)
    classifier = mixtures(means=means, strategy="exhaustive:n_samples=500")
    images, _ = drawn(1, 4, means)
    for image, record in zip(images, classifier.classify(images), strict=True):
        t = record.samples.timesteps
        a, s = np.asarray(T.signal)[t], np.asarray(T.sigma)[t]
        z0 = image / 127.5 - 1
        square = np.square(z0 - means[:, 0]).sum(axis=(1, 2, 3)) / SIZE
        weight = np.square(s * a / (a * a * VARIANCE + s * s)).mean()
        winner = int(square.argmin())
        assert record.label == NAMES[winner]
        mean, standard_error = record.differences()
        expected = weight * (square - square[winner])
        off = np.abs(mean - expected) / np.where(standard_error, standard_error, 1)
        assert (off < 4).all() and (standard_error < 0.1 * expected.max()).all()


FLOW = Schedule.named("flow", shift=2.0)


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (T, {"strategy": "exhaustive:n_samples=100"}),
        (T, {"strategy": "racing:n_samples=200:confidence=0.99", "loss": "l1"}),
        (T, {"strategy": "staged:to_keep=2,1:n_samples=30,100", "loss": "huber"}),
        (T, {"space": "data", "strategy": "racing:n_samples=250:confidence=0.99"}),
        (T, {"space": "velocity", "also": ("l1",)}),
        (FLOW, {"strategy": "exhaustive:n_samples=100"}),
    ],
    ids=lambda value: None if isinstance(value, Schedule) else str(value),
)
def test_the_class_is_the_one_that_bayes_has(schedule, options):
    images, log_posterior = drawn(2, 30)
    sure = log_posterior.max(axis=1) > np.log(0.99)
    assert sure.sum() > 20
    records = mixtures(schedule, **options).classify(images)
    found = np.array([NAMES.index(record.label) for record in records])
    assert (found == log_posterior.argmax(axis=1))[sure].all()


class Linear(nnx.Module):
    def __init__(self):
        rng = np.random.default_rng(3)
        self.kernel = nnx.Param(jnp.asarray(rng.standard_normal((3, 3)), jnp.float32))

    def __call__(self, z_t, t, condition):
        return jnp.tanh(z_t @ self.kernel) * condition["scale"] + condition["shift"]


def equinox_module():
    eqx = pytest.importorskip("equinox")

    class Network(eqx.Module):
        mlp: eqx.nn.MLP
        steps: int = eqx.field(static=True)

        def __call__(self, z_t, t, condition):
            told = jnp.concatenate([z_t.ravel(), t[None] / self.steps])
            told = jnp.concatenate([told, condition["shift"], condition["scale"]])
            return self.mlp(told).reshape(z_t.shape)

    mlp = eqx.nn.MLP(SIZE + 7, SIZE, 32, 2, key=jax.random.key(0))
    return Network(mlp, 1000)


def bound_function():
    kernel = jnp.asarray(np.random.default_rng(4).standard_normal((3, 3)), jnp.float32)

    def predict(kernel, z_t, t, condition):
        return jnp.sin(z_t @ kernel + condition["shift"]) * condition["scale"]

    return functools.partial(predict, kernel)


KINDS = [equinox_module, Linear, bound_function]
CONDITIONS = {
    "shift": np.random.default_rng(5).standard_normal((3, 3)).astype(np.float32),
    "scale": np.random.default_rng(6).uniform(0.5, 1.5, (3, 3)).astype(np.float32),
}


def classifier_of(predict, **options):
    given = {"name": "theirs", "class_names": NAMES} | options
    return DiffusionClassifier.from_denoiser(predict, T, SHAPE, CONDITIONS, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_the_network(kind):
    predict = kind()
    classifier = classifier_of(predict, strategy="exhaustive:n_samples=5")
    image = np.random.default_rng(7).integers(0, 256, SHAPE, np.uint8)
    record = classifier.classify(image)
    encoded = classifier.encode(image)
    np.testing.assert_allclose(encoded.z0, image / 127.5 - 1, atol=1e-6)
    for c in range(3):
        condition = {key: jnp.asarray(rows[c]) for key, rows in CONDITIONS.items()}
        for s, (t, k) in enumerate(
            zip(record.samples.timesteps, record.samples.noises, strict=True)
        ):
            noise = classifier.grid.noise.draw(jnp.uint32(encoded.key), int(k), SHAPE)
            z_t = add_noise(T, jnp.asarray(encoded.z0), noise, int(t))
            error = jnp.square(noise - predict(z_t, jnp.int32(t), condition)).mean()
            np.testing.assert_allclose(record.errors[c, s], error, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_in_the_fingerprint(kind):
    predict = kind()
    model = classifier_of(predict).model
    assert classifier_of(predict).model.fingerprint == model.fingerprint
    doubled = jax.tree.map(
        lambda leaf: 2 * leaf if isinstance(leaf, jax.Array) else leaf,
        jax.tree_util.Partial(predict.func, *predict.args)
        if isinstance(predict, functools.partial)
        else predict,
    )
    for other in (
        classifier_of(doubled),
        classifier_of(predict, name="another"),
        classifier_of(predict, encode=lambda pixels: -pixels),
    ):
        assert other.model.fingerprint != model.fingerprint
    assert model.denoiser.parameters > 9


def with_a_key():
    """Weights and a random key, bound by name, in a function that is bound to them."""

    class Noisy:
        def __init__(self, kernel):
            self.kernel = kernel

        def predict(self, key, z_t, t, condition):
            return z_t @ self.kernel + jax.random.normal(key, z_t.shape)

    jax.tree_util.register_pytree_node(
        Noisy, lambda x: ((x.kernel,), None), lambda _, leaves: Noisy(*leaves)
    )
    return functools.partial(Noisy(jnp.eye(3)).predict, jax.random.key(0))


@pytest.mark.parametrize(
    ("predict", "n_weights"),
    [
        (Linear().__call__, 9),
        (with_a_key(), 9 + 2),
        (jax.jit(bound_function()), 0),  # closed over
        (functools.partial(lambda w, z, t, c: z @ w, np.eye(3)), 9),  # of 64 bits
    ],
)
def test_weights_are_found_where_they_are_bound(predict, n_weights):
    classifier = classifier_of(predict, strategy="exhaustive:n_samples=2")
    n_conditions = sum(rows.size for rows in CONDITIONS.values())
    assert classifier.model.denoiser.parameters == n_weights + n_conditions
    assert np.isfinite(classifier.classify(np.zeros(SHAPE, np.uint8)).errors).all()


def test_a_run_goes_on_with_the_same_weights_alone(tmp_path):
    class Four(Made):
        def __init__(self):
            super().__init__(names=NAMES, order=range(4))

    predict = Linear()
    options = {"strategy": "racing:n_samples=20", "resolution": EDGE}
    ours = classifier_of(predict, **options)
    evaluate(task_of(Four()), ours, tmp_path / "run", save_errors=True)
    header = read_run(tmp_path / "run").header
    assert header["model"]["name"] == "theirs"
    assert header["model"]["weights"] == ours.model.weights
    evaluate(
        task_of(Four()),
        classifier_of(predict, **options),
        tmp_path / "run",
        save_errors=True,
    )
    predict.kernel[...] = predict.kernel[...] + 1
    with pytest.raises(DiffjaxError, match="another configuration"):
        evaluate(
            task_of(Four()),
            classifier_of(predict, **options),
            tmp_path / "run",
            save_errors=True,
        )


def test_an_encoder_a_grey_latent_and_a_variance(tmp_path):
    def halves(pixels):
        return pixels.reshape(EDGE, 2, EDGE, 2, 3).mean(axis=(1, 3))

    classifier = classifier_of(Linear(), encode=halves, resolution=2 * EDGE)
    image = np.random.default_rng(8).integers(0, 256, (8, 8, 3), np.uint8)
    expected = halves(image / 127.5 - 1)
    np.testing.assert_allclose(classifier.encode(image).z0, expected, atol=1e-6)

    grey = DiffusionClassifier.from_denoiser(
        lambda z, t, number: jnp.concatenate([z * (1 + number), 0 * z], axis=-1),
        *(T, (8, 8, 1)),
        class_names=NAMES,
        name="numbers",
        loss="l2+vlb",
    )
    expected = (image / 127.5 - 1).mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(grey.encode(image).z0, expected, atol=1e-6)
    assert grey.model.learned_variance
    assert {e["label"] for e in grey(image, candidate_labels="ring,stripe")} == {
        "ring",
        "stripe",
    }


GOOD = {
    "predict": lambda z, t, c: z * c["shift"],
    "schedule": T,
    "latent_shape": SHAPE,
    "conditions": CONDITIONS,
    "name": "theirs",
}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"predict": lambda z, t, c: z[None]}, ["float32[1, 4, 4, 3]", "return pred"]),
        ({"predict": lambda z, t, c: z.sum()}, ["returns float32[]", "[4, 4, 6]"]),
        ({"predict": lambda z, t, c: (z, z)}, ["returns a tuple", "one array"]),
        (
            {"predict": lambda z, t, c: z > 0},
            ["returns bool", "must be float"],
        ),
        (
            {"predict": lambda z, t, c: z @ c["s"]},
            ["KeyError: 's'", "scale: float32"],
        ),
        ({"predict": lambda z, t: z}, ["TypeError", "condition {"]),
        ({"latent_shape": (1, 3, 4, 4)}, ["(1, 3, 4, 4)", "no batch axis"]),
        ({"latent_shape": (3, 4, 4)}, ["squares", "same"]),
        ({"latent_shape": (4, 4, 5), "predict": lambda z, t, c: z}, ["Without encode"]),
        ({"encode": lambda pixels: pixels[:2]}, ["float32[2, 4, 3]", "resolution"]),
        ({"resolution": 6}, ["6 pixels", "multiple"]),
        ({"conditions": [1, 2]}, ["a int", "row for each class"]),
        ({"conditions": {"shift": np.ones((3, 3)), "x": np.ones(2)}}, ["2 and 3 rows"]),
        ({"conditions": [*np.ones((3, 8))], "class_names": [*"abc"]}, ["jnp.stack"]),
        ({"conditions": None}, ["class_names"]),
        ({"class_names": ["a"]}, ["1 class_names for 3 rows"]),
        ({"loss": "vlb"}, ["does not predict the variance"]),
    ],
)
def test_what_does_not_fit_is_told(wrong, words):
    with pytest.raises(DiffjaxError) as caught:
        DiffusionClassifier.from_denoiser(**(GOOD | wrong))
    for word in words:
        assert word in str(caught.value)


def test_other_types_are_told():
    """Where nobody checks annotations; these tests do."""
    with pytest.raises(DiffjaxError, match=r"a str; it must be a diffjax\.Schedule"):
        own._check_schedule("linear")
    with pytest.raises(DiffjaxError, match="predict is a int"):
        own._check_callable("predict", 3)
    with pytest.raises(DiffjaxError, match="latent_shape is 4"):
        own._check_latent_shape(4)


def test_shortlists_need_conditions_that_are_vectors():
    image = np.zeros(SHAPE, np.uint8)
    numbers = GOOD | {
        "predict": lambda z, t, number: z * number,
        "conditions": None,
        "class_names": NAMES,
    }
    with pytest.raises(DiffjaxError, match="told numbers of classes"):
        DiffusionClassifier.from_denoiser(**numbers, shortlist="k=2").classify(image)
    clf = DiffusionClassifier.from_denoiser(**GOOD)
    with pytest.raises(DiffjaxError, match="stands for no class"):
        clf.model.unconditional()


def test_a_wrong_setting_is_one_line_that_knows_better():
    with pytest.raises(TypeError, match=r"argument 'strategi'\. Did you mean 'strate"):
        classifier_of(Linear(), strategi="exhaustive")
    fields = {field.name for field in dataclasses.fields(Settings)}
    keywords = DiffusionClassifier.from_denoiser.__signature__.parameters
    assert fields <= set(keywords)


def test_a_denoiser_that_ignores_its_condition_is_told():
    """Nothing else would say so: a race ends sure of the first class."""
    clf = DiffusionClassifier.from_denoiser(
        lambda z_t, t, condition: 0.9 * z_t,
        T,
        latent_shape=(4, 4, 3),
        class_names=["a", "b"],
        name="blind",
    )
    with pytest.warns(UserWarning, match="errors of all classes are identical"):
        clf.classify(np.zeros((4, 4, 3), np.uint8))


def test_memory_is_what_is_live_at_once():
    a, b = (jax.ShapeDtypeStruct((n,), jnp.float32) for n in (10, 1000))

    def function(small, large):
        total = ((large * 2) * (large * 3)).sum()  # three of 4,000 bytes
        return jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) + total, small)

    assert live_bytes(program(function, a, b)) == 12_000
    looped = program(lambda x: jax.lax.map(lambda y: y[None] * x, x), b)
    assert live_bytes(looped) >= 1000 * 4000  # what comes of a loop, and its inside
