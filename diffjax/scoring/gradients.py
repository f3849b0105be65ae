"""A first-order estimate of every class's error, from gradients at one condition.

    b       = the mean of all classes' conditions
    g[s]    = ∂e(c, s)/∂c  at c = b
    ê[c, s] = e(b, s) + ⟨g[s], c − b⟩                summed over floating leaves of c

for samples s = (t, ε). One forward and one backward pass per sample serve all n
classes: what remains is one matrix product a leaf, [n, l·d] by [l·d, s]. How good the
estimate is depends on how far the classes are from the base. (The empty prompt for b
is no better, and a base for each cluster of classes, or another round around the best
few, is worth less than it costs: docs/strategies.md.)

Conditions are vectors here: text states, or a class's row of the table of a
class-conditional model. Leaves of other numbers, such as masks, are the base's for all
classes: the estimate does not see what they tell apart.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.conditions import (
    floating,
    in_dtype,
    with_floating,
)
from diffjax.models.network import Network
from diffjax.schedules import Schedule
from diffjax.scoring.cost import count_flops
from diffjax.scoring.grid import cell_errors
from diffjax.scoring.noise import ImageNoise
from diffjax.scoring.placement import (
    BLOCKS,
    everywhere,
    gather_weights,
    split_blocks,
    weight_specs,
)
from diffjax.tracing import eval_shape, jit

CLASSES_AT_ONCE = 256  # in the product: bounds the copy of c − b
# Of what is kept by the letter of the program, compilers keep so much: in 16 bits norms
# and the like are computed anew from their inputs instead of being kept in float32.
KEPT = {4: 1.0, 2: 0.6}  # by the bytes of a number


def condition_vectors(denoiser: Network, conditions: Any) -> Any:
    """Rows of conditions as vectors, float32: for class ids their rows of the table."""
    vectors: Any = jax.vmap(denoiser.module().vectors)(conditions)
    return in_dtype(vectors, jnp.float32)


def error_gradients(
    denoiser: Network,
    schedule: Schedule,
    noise: ImageNoise,
    z0: Float[Array, "h w c"],
    base: Any,
    timesteps: Int[Array, " s"],
    noises: Int[Array, " s"],
    *,
    loss: str,
) -> tuple[Float[Array, " s"], list[Float[Array, "s ..."]]]:
    """e(b, s) of all samples, and g[s] for each floating leaf, float32.

    Args:
        denoiser: the network.
        schedule: the forward process.
        noise: of the image.
        z0: the image's latent.
        base: b, a tree.
        timesteps: t of each sample, in [0, T).
        noises: the noise index of each sample.
        loss: a key of ``LOSSES``.
    """

    def total(vectors: list[Array], t: Array, k: Array) -> Array:
        epsilon, condition = noise.draw(k, z0.shape), with_floating(base, vectors)
        [error] = cell_errors(
            denoiser, schedule, z0, condition, t, epsilon, losses=(loss,)
        )
        # the sum over elements: float16 would round the mean's gradients to zero
        summed: Array = z0.size * error
        return summed

    # not lax.map, which bounds the memory too: CPUs convolve slowly inside a loop
    over_samples = jax.vmap(jax.value_and_grad(total), in_axes=(None, 0, 0))
    errors, gradients = over_samples(floating(base), timesteps, noises)
    return errors / z0.size, [each / z0.size for each in gradients]


@jit
def first_order(
    vectors: Any,
    base: Any,
    errors: Float[Array, " s"],
    gradients: list[Float[Array, "s ..."]],
) -> Float[Array, "n s"]:
    """ê of all classes, by a matrix product for each floating leaf.

    Args:
        vectors: c of each class, a tree of rows.
        base: b, a tree.
        errors: e(b, s).
        gradients: g[s].
    """
    for c, b, g in zip(floating(vectors), floating(base), gradients, strict=True):
        axes = tuple(range(1, c.ndim))
        products = [
            jnp.tensordot(
                c[start : start + CLASSES_AT_ONCE] - b,
                g,
                axes=(axes, axes),
                precision="highest",
            )
            for start in range(0, len(c), CLASSES_AT_ONCE)
        ]
        errors = errors + jnp.concatenate(products)
    return errors


@partial(jit, static_argnames=("loss", "mesh", "sharded"))
def _sharded_gradients(
    denoiser: Network,
    schedule: Schedule,
    noise: ImageNoise,
    z0: Array,
    base: Any,
    timesteps: Array,
    noises: Array,
    *,
    loss: str,
    mesh: Mesh,
    sharded: bool,
) -> tuple[Array, list[Array]]:
    """``error_gradients``, samples split over the mesh; so are weights, if sharded."""
    specs = weight_specs(denoiser, mesh, sharded=sharded)

    def part(denoiser: Network, *rest: Any) -> tuple[Array, list[Array]]:
        # the backward pass needs the whole weights once more, so all of them at a time
        return error_gradients(gather_weights(denoiser, specs), *rest, loss=loss)

    copied, split = PartitionSpec(), PartitionSpec(BLOCKS)
    both: tuple[Array, list[Array]] = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(specs, *(copied,) * 4, split, split),
        out_specs=(split, split),
        check_vma=False,
    )(denoiser, schedule, noise, z0, base, timesteps, noises)
    return both


@dataclass(kw_only=True, eq=False)
class Estimator:
    """Estimates the errors of all classes of one image.

    Attributes:
        denoiser: on ``mesh``, as of ``placement.place_weights``.
        schedule: replicated over ``mesh``.
        loss: a key of ``LOSSES``.
        batch: samples at once on each device, at most; less when memory runs out.
        mesh: devices along samples.
        sharded: whether the denoiser's weights are split among the devices.
    """

    denoiser: Network
    schedule: Schedule
    loss: str
    batch: int
    mesh: Mesh
    sharded: bool = False

    def _at_once(
        self,
        noise: ImageNoise,
        z0: Float[Array, "h w c"],
        vectors: Any,
        base: Any,
        timesteps: Int[np.ndarray, " s"],
        noises: Int[np.ndarray, " s"],
    ) -> Float[Array, "n s"]:
        """``estimate``; returns before it has been computed."""
        self.schedule.check(timesteps)
        noise.check(noises)
        s = len(timesteps)
        n_tiles = -(-s // (self.batch * self.mesh.size))
        width = -(-s // n_tiles // self.mesh.size) * self.mesh.size
        # filled up with repeated samples: a second shape would be compiled for the rest
        tiles = np.minimum(np.arange(n_tiles * width), s - 1).reshape(n_tiles, width)
        estimates = []
        for columns in tiles:
            errors, gradients = _sharded_gradients(
                self.denoiser,
                self.schedule,
                noise,
                z0,
                base,
                *split_blocks((timesteps[columns], noises[columns]), self.mesh),
                loss=self.loss,
                mesh=self.mesh,
                sharded=self.sharded,
            )
            estimates.append(first_order(vectors, base, errors, gradients))
        return jnp.concatenate(estimates, axis=1)[:, :s]

    def flops(self, noise: ImageNoise, z0: Float[Array, "h w c"], base: Any) -> float:
        """Of one sample's forward and backward pass; nothing is compiled."""
        one = jnp.zeros(1, jnp.int32)
        arguments = self.denoiser, self.schedule, noise, z0, base, one, one
        return count_flops(partial(error_gradients, loss=self.loss), *arguments)

    def estimate(
        self,
        noise: ImageNoise,
        z0: Float[Array, "h w c"],
        vectors: Any,
        base: Any,
        timesteps: Int[np.ndarray, " s"],
        noises: Int[np.ndarray, " s"],
    ) -> Float[np.ndarray, "n s"]:
        """ê of all classes.

        Args:
            noise: of the image.
            z0: the image's latent.
            vectors: c of each class, a tree of rows.
            base: b, a tree, with what the image tells besides.
            timesteps: of the samples.
            noises: noise indices of the samples.

        Returns:
            float32, on the host.

        Raises:
            DiffjaxError: if the device's memory does not hold one sample's gradient.
        """
        while True:
            try:
                found = self._at_once(noise, z0, vectors, base, timesteps, noises)
                return np.asarray(everywhere(found, self.mesh))
            except jax.errors.JaxRuntimeError as error:
                self._shrink(error)

    def _shrink(self, error: Exception) -> None:
        """After running out of memory: half as many samples at once from now on."""
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise error
        if self.mesh.is_multi_process:  # the others have not run out of it
            raise DiffjaxError(
                f"A device's memory does not hold the gradients of {self.batch} "
                "samples, and processes that share a mesh need to take as many: give "
                f"all of them --cells {max(1, self.batch // 2) * self.mesh.size}, or "
                "no shortlist."
            ) from error
        if self.batch == 1:
            raise DiffjaxError(
                "The device's memory does not hold the gradient of a single sample; "
                "do without a shortlist, use a smaller dtype or resolution, or a "
                "larger device."
            ) from error
        warnings.warn(
            f"the device's memory does not hold the gradients of {self.batch} "
            f"samples; going on with {self.batch // 2}.",
            stacklevel=2,
        )
        self.batch //= 2


def bytes_of_gradient(
    denoiser: Network,
    schedule: Schedule,
    z0: tuple[int, ...],
    base: Any,
    loss: str,
) -> int:
    """Bytes that one more sample's gradient takes, about.

    What the backward pass keeps of a forward pass is found by tracing: nothing is
    computed or compiled.

    Args:
        denoiser: the network.
        schedule: the forward process.
        z0: shape of a latent.
        base: shapes of a condition's vectors, a tree.
        loss: a key of ``LOSSES``.
    """

    def backward(denoiser: Network, z0: Array, base: Any) -> object:
        def error(vectors: list[Array]) -> Array:
            t, condition = jnp.int32(0), with_floating(base, vectors)
            return cell_errors(denoiser, schedule, z0, condition, t, z0, losses=(loss,))

        return jax.vjp(error, floating(base))[1]

    latent = jax.ShapeDtypeStruct(z0, jnp.float32)
    kept = eval_shape(backward, denoiser, latent, base)
    # the weights are there already, once for all samples
    n_bytes = _bytes(kept) - _bytes(denoiser)
    return max(1, int(KEPT[denoiser.dtype.itemsize] * n_bytes))


def _bytes(tree: object) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
