"""A denoiser that somebody else wrote, as a ``DiffusionModel``.

    predict(z_t, t, condition) → prediction         one image, without a batch axis
    encode(pixels) → z0                             likewise; None for the pixels

Either is any JAX function, or a pytree that can be called: an Equinox module, a module
of Flax NNX, ``functools.partial(apply, parameters)``. Arrays in it are weights: they
go through jit as such, and the model's fingerprint knows them. What a function has
closed over is compiled in as constants, and nobody can tell it from code; then the
model is known by its name alone.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffjax.errors import DiffjaxError
from diffjax.models.conditions import floating, is_floating, shapes, take
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.held import Held
from diffjax.models.network import Network
from diffjax.schedules import Schedule
from diffjax.tracing import eval_shape, pinned, program

ALONE = "It is called with one image, without a batch axis."


@pinned()
def own_model(
    predict: Callable[..., Any],
    schedule: Schedule,
    latent_shape: Sequence[int],
    conditions: Any = None,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    encode: Callable[..., Any] | None = None,
    resolution: int | None = None,
) -> DiffusionModel:
    """Make a model of a denoiser; ``DiffusionClassifier.from_denoiser`` says how.

    Raises:
        DiffjaxError: If shapes or numbers of classes do not fit one another, which is
            found without computing anything.
    """
    _check_schedule(schedule)
    height, width, channels = _check_latent_shape(latent_shape)
    resolution = resolution or height
    if resolution % height:
        raise DiffjaxError(
            f"{name}: images of {resolution} pixels along an edge cannot have latents "
            f"of {height}: the one must be a multiple of the other."
        )
    n_classes = _count(conditions, class_names)
    conditions = jax.tree.map(jnp.asarray, conditions)
    names = range(n_classes) if class_names is None else class_names
    _check_callable("predict", predict)
    told = _shapes(schedule, (height, width, channels), conditions)
    variance = _check_prediction(predict, *told)
    denoiser = OwnDenoiser(predict, conditions, told[:2])
    if encode is not None:
        _check_callable("encode", encode)
    encoder = OwnEncoder(encode, channels)
    _check_encoder(encoder, resolution, (height, width, channels))
    return DiffusionModel(
        name=name,
        origin={"model": name},
        kind="class",
        denoiser=Network.of(denoiser),
        autoencoder=Network.of(encoder),
        scaling_factor=1.0,
        schedule=schedule,
        resolution=resolution,
        downscale=resolution // height,
        multiple=resolution // height,
        latent_channels=channels,
        learned_variance=variance,
        class_names=tuple(map(str, names)),
        n_classes=n_classes,
        unguided=False,
        # weights have their own fingerprints; of code there is nothing but its name
        configs={
            "denoiser": {"name": name, "conditions": conditions is not None},
            "vae": {"name": name if encode is not None else "pixels"},
        },
    )


class OwnDenoiser(nnx.Module):
    """A denoiser with the conditions of its classes, which are known by number."""

    def __init__(
        self, predict: Callable[..., Any], conditions: Any, shapes: tuple[Any, ...]
    ) -> None:
        self.predict = Held(predict)
        self.table = None if conditions is None else Held(conditions)
        self.shapes = shapes  # of a latent and its time

    def __call__(
        self, latent: Float[Array, "h w c"], time: Array, condition: Any
    ) -> Float[Array, "h w o"]:
        """Predict from one noised latent, float32.

        Args:
            latent: z_t.
            time: what the schedule has it told.
            condition: a class's number, or what stands for it.
        """
        if isinstance(condition, jax.Array) and not is_floating(condition):
            condition = self._row(condition)
        prediction: Array = self.predict.tree()(latent, time, condition)
        return prediction.astype(jnp.float32)

    def vectors(self, condition: Array) -> Any:
        """The condition of a class's number, which is to have gradients.

        Raises:
            DiffjaxError: if there is nothing in it that could.
        """
        row = self._row(condition)
        if not floating(row):
            raise DiffjaxError(
                "A shortlist takes gradients by conditions, so they must be floating "
                "numbers; this denoiser is told numbers of classes. Give conditions, "
                "or leave the shortlist out."
            )
        return row

    def condition_shapes(self) -> jax.ShapeDtypeStruct:
        """Shape of a class's number."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def memory(self, height: int, width: int) -> int:
        """Bytes that one more forward pass takes, about: what is live at once."""
        latent, time = self.shapes
        latent = jax.ShapeDtypeStruct((height, width, latent.shape[-1]), latent.dtype)
        number = self.condition_shapes()
        return max(1, live_bytes(program(self.__call__, latent, time, number)))

    def _row(self, number: Array) -> Any:
        return number if self.table is None else take(self.table.tree(), number)


class OwnEncoder(nnx.Module):
    """Pixels → z0, by a function or as they are."""

    def __init__(self, encode: Callable[..., Any] | None, channels: int) -> None:
        self.function = None if encode is None else Held(encode)
        self.channels = channels

    def encode(self, pixels: Float[Array, "H W 3"]) -> tuple[Array]:
        """The latent of one image; one of one channel has the mean of the colours."""
        if self.function is not None:
            return (self.function.tree()(pixels),)
        grey = self.channels == 1
        return (pixels.mean(axis=-1, keepdims=True) if grey else pixels,)


def live_bytes(jaxpr: Any) -> int:
    """Most bytes of results that are needed at once, as a program is written."""
    used = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if _is_var(v)}
    used |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if _is_var(v)}
    sizes: dict[Any, int] = {}
    most = 0
    for i, eqn in enumerate(jaxpr.eqns):
        sizes |= {v: v.aval.size * v.aval.dtype.itemsize for v in eqn.outvars}
        inside = (live_bytes(each) for each in _inner(eqn.params.values()))
        most = max(most, sum(sizes.values()) + max(inside, default=0))
        sizes = {v: size for v, size in sizes.items() if used.get(v, -1) > i}
    return most


def _is_var(variable: Any) -> bool:
    return not hasattr(variable, "val")  # else it is a number in the program


def _inner(values: Iterable[Any]) -> Iterator[Any]:
    """Programs within a program: of loops, branches and functions."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def _shapes(
    schedule: Schedule, latent_shape: tuple[int, int, int], conditions: Any
) -> tuple[Any, Any, Any]:
    """Of what a denoiser is told: z_t, time, condition."""
    number = jax.ShapeDtypeStruct((), jnp.int32)
    return (
        jax.ShapeDtypeStruct(latent_shape, jnp.float32),
        jax.ShapeDtypeStruct((), schedule.time.dtype),
        number if conditions is None else shapes(conditions),
    )


def _check_prediction(predict: Callable[..., Any], *told: Any) -> bool:
    """Whether a denoiser predicts a variance besides; DiffjaxError if it is no such."""
    (height, width, channels), *_ = (each.shape for each in told[:1])
    call = f"predict(z_t {_shown(told[0])}, t {_shown(told[1])}, condition "
    call += f"{_shown(told[2])})"
    wanted = f"float [{height}, {width}, {channels}]"
    found = _called(predict, told, call, f"a prediction {wanted}")
    several = (height, width, 2 * channels)
    if found.shape not in (told[0].shape, several) or not is_floating(found):
        raise DiffjaxError(
            f"{call} returns {_shown(found)}; it must be {wanted}, or "
            f"[{height}, {width}, {2 * channels}] if the model predicts a variance as "
            f"well. {ALONE}{_batch_hint(found, told[0].shape)}"
        )
    return bool(found.shape == several)


def _check_encoder(
    encoder: "OwnEncoder", resolution: int, latent_shape: tuple[int, int, int]
) -> None:
    pixels = jax.ShapeDtypeStruct((resolution, resolution, 3), jnp.float32)
    height, width, channels = latent_shape
    if encoder.function is None and (resolution != height or channels not in (1, 3)):
        raise DiffjaxError(
            f"Without encode the latent is the image itself: [{resolution}, "
            f"{resolution}, 3], or 1 channel for grey; not [{height}, {width}, "
            f"{channels}]. Give encode, or another latent_shape."
        )
    call = f"encode(pixels {_shown(pixels)})"
    wanted = f"float [{height}, {width}, {channels}]"
    found = _called(lambda of: encoder.encode(of)[0], (pixels,), call, wanted)
    if found.shape != latent_shape or not is_floating(found):
        raise DiffjaxError(
            f"{call} returns {_shown(found)}; latent_shape says {wanted}. {ALONE}"
            f"{_batch_hint(found, latent_shape)} Set resolution to the pixels along an "
            "edge that encode takes."
        )


def _called(
    function: Callable[..., Any], told: tuple[Any, ...], call: str, wanted: str
) -> Any:
    """The shape that a function returns."""
    try:
        found = eval_shape(function, *told)
    except DiffjaxError:
        raise
    except Exception as error:  # it is anybody's
        reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        raise DiffjaxError(
            f"{call} fails ({reason}). It must return {wanted}. {ALONE}"
        ) from error
    if not hasattr(found, "shape"):
        raise DiffjaxError(
            f"{call} returns a {type(found).__name__}; it must return one array, "
            f"{wanted}."
        )
    return found


def _batch_hint(found: Any, wanted: tuple[int, ...]) -> str:
    if found.shape[1:] != wanted:
        return ""
    return " Take the first of the batch: return prediction[0]."


def _shown(shape: Any) -> str:
    """A shape or a tree of them: float32[8, 8, 3]."""
    if hasattr(shape, "shape"):
        return f"{shape.dtype}{list(shape.shape)}"
    return str(jax.tree.map(_shown, shape)).replace("'", "")


def _check_schedule(schedule: Any) -> None:
    if not isinstance(schedule, Schedule):
        raise DiffjaxError(
            f"The schedule is a {type(schedule).__name__}; it must be a "
            'diffjax.Schedule, as Schedule.named("scaled_linear") makes one.'
        )


def _check_callable(name: str, function: Any) -> None:
    if not callable(function):
        raise DiffjaxError(
            f"{name} is a {type(function).__name__}, which cannot be called."
        )


def _check_latent_shape(shape: Any) -> tuple[int, int, int]:
    try:
        height, width, channels = map(operator.index, shape)
    except (TypeError, ValueError):
        raise DiffjaxError(
            f"latent_shape is {shape!r}; it must be (height, width, channels), the "
            "channels last and no batch axis."
        ) from None
    if height != width or min(height, channels) < 1:
        raise DiffjaxError(
            f"latent_shape is {shape!r}; images are squares, so height and width must "
            "be the same, and all at least 1."
        )
    return height, width, channels


def _count(conditions: Any, class_names: Sequence[str] | None) -> int:
    """How many classes there are."""
    if conditions is None:
        if class_names is None:
            raise DiffjaxError(
                "Give conditions, a row for each class, or class_names: the denoiser "
                "is then told their numbers from 0."
            )
        return len(class_names)
    lengths = set()
    for leaf in jax.tree.leaves(conditions):
        if not getattr(leaf, "shape", ()):
            raise DiffjaxError(
                f"conditions hold a {type(leaf).__name__}; they must be arrays with a "
                "row for each class."
            )
        lengths.add(int(leaf.shape[0]))
    if len(lengths) != 1:
        raise DiffjaxError(
            f"conditions have {' and '.join(map(str, sorted(lengths))) or 'no'} rows; "
            "all arrays in them need as many rows as there are classes."
        )
    [n] = lengths
    if class_names is not None and len(class_names) != n:
        parts = isinstance(conditions, list | tuple) and len(conditions)
        raise DiffjaxError(
            f"There are {len(class_names)} class_names for {n} rows of conditions."
            + (
                f" A {type(conditions).__name__} is a tree, here of {parts} parts with "
                "a row for each class; jnp.stack makes one array of it."
                if parts
                else ""
            )
        )
    return n
