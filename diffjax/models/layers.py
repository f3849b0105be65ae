"""What the networks are made of. Every layer maps one image: no batch axis anywhere.

Images are [h, w, c], token sequences are [l, d]. A batch is made by vmap from
outside, so that whatever does not depend on a mapped argument is computed once.

Computation is in ``dtype``; means, variances and softmax are in float32, and so are
the denoisers' last layers: rounding ε̂ would blur what ε − ε̂ is to tell. What is in
float32 is multiplied as such, on every device; see ``attention.precision``.
Attribute names are those of the torch modules in diffusers and transformers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError
from diffjax.models.attention import attend, precision
from diffjax.models.convolution import convolve

Activation = Literal["gelu", "gelu-approximate", "gelu_new", "quick_gelu"]
ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu-approximate": partial(jax.nn.gelu, approximate=True),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


class GroupNorm(nnx.GroupNorm):
    """Group normalisation of one [..., c] array over all its leading axes."""

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalise, in float32; flax's own layer takes the first axis for a batch."""
        assert mask is None
        assert self.scale is not None and self.bias is not None
        groups = x.astype(jnp.float32).reshape(-1, self.num_groups, self.group_size)
        centred = groups - groups.mean((0, 2), keepdims=True)
        variance = jax.lax.square(centred).mean((0, 2), keepdims=True)
        normal = (centred * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return (normal * self.scale[...] + self.bias[...]).astype(self.dtype)


class BatchNorm(nnx.Module):
    """Normalisation of [..., c] by statistics that are fixed: those of training."""

    def __init__(self, channels: int, epsilon: float, make: "Make") -> None:
        self.epsilon, self.dtype = epsilon, make.dtype
        drawn = make.rngs is not None
        self.scale, self.bias, self.mean, self.var = (
            nnx.Param(
                jnp.full(channels, value, jnp.float32)
                if drawn
                else _shape(None, (channels,), jnp.float32)
            )
            for value in (1, 0, 0, 1)
        )

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Normalise, in float32."""
        slope = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
        normal = (x.astype(jnp.float32) - self.mean[...]) * slope + self.bias[...]
        out: Array = normal.astype(self.dtype)
        return out


class _NoKeys(nnx.Rngs):
    """Stands where flax asks for keys that nothing is drawn with."""

    def __init__(self) -> None:
        pass

    def params(self) -> None:
        return None


_NO_KEYS = _NoKeys()


def _shape(key: None, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@dataclass(frozen=True, kw_only=True)
class Make:
    """Makes the primitive layers, with torch's defaults where flax's differ.

    Without ``rngs`` their parameters are shapes alone: what a checkpoint fills needs no
    values, and tracing how they would be drawn takes longer than reading them.
    """

    rngs: nnx.Rngs | None
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def precise(self) -> "Make":
        """The same in float32."""
        return replace(self, dtype=jnp.float32, param_dtype=jnp.float32)

    def _drawn(self, *parameters: str) -> dict[str, Any]:
        """Where the parameters of a layer come from, as arguments of flax's layers."""
        if self.rngs is not None:
            return {"rngs": self.rngs}
        return {"rngs": _NO_KEYS} | {f"{name}_init": _shape for name in parameters}

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nnx.Linear:
        """[..., inputs] → [..., outputs]."""
        return nnx.Linear(
            inputs,
            outputs,
            use_bias=bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=precision(self.dtype),
            **self._drawn("kernel", "bias"),
        )

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: tuple[int, int] | None = None,
        bias: bool = True,
    ) -> nnx.Conv:
        """Square convolution; ``padding`` is (before, after), default kernel // 2."""
        before, after = padding or (kernel // 2, kernel // 2)
        return nnx.Conv(
            inputs,
            outputs,
            (kernel, kernel),
            strides=stride,
            padding=((before, after), (before, after)),  # hashable, as it is static
            conv_general_dilated=convolve,
            use_bias=bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=precision(self.dtype),
            **self._drawn("kernel", "bias"),
        )

    def group_norm(self, channels: int, groups: int, epsilon: float) -> GroupNorm:
        """[..., channels]; statistics and parameters in float32."""
        if channels % groups:
            raise DiffjaxError(
                f"{channels} channels do not divide into norm_num_groups={groups}."
            )
        return GroupNorm(
            channels,
            groups,
            epsilon=epsilon,
            dtype=self.dtype,
            # flax's E[x²] − E[x]² loses digits where the mean is large
            use_fast_variance=False,
            **self._drawn("scale", "bias"),
        )

    def batch_norm(self, channels: int, epsilon: float) -> BatchNorm:
        """[..., channels]; statistics and parameters in float32."""
        return BatchNorm(channels, epsilon, self)

    def layer_norm(
        self, features: int, epsilon: float, affine: bool = True
    ) -> nnx.LayerNorm:
        """[..., features]; statistics and parameters in float32."""
        return nnx.LayerNorm(
            features,
            epsilon=epsilon,
            use_bias=affine,
            use_scale=affine,
            dtype=self.dtype,
            use_fast_variance=False,
            **self._drawn("scale", "bias"),
        )

    def rms_norm(self, features: int, epsilon: float) -> nnx.RMSNorm:
        """[..., features], without a mean; statistics and scale in float32."""
        return nnx.RMSNorm(
            features, epsilon=epsilon, dtype=self.dtype, **self._drawn("scale")
        )

    def table(self, *shape: int) -> nnx.Param[Any]:
        """Numbers of a module itself, which keep its attribute's name in files."""
        if self.rngs is None:
            return nnx.Param(_shape(None, shape, self.param_dtype))
        scale = shape[-1] ** -0.5 if shape else 1.0
        draw = nnx.initializers.normal(scale, self.param_dtype)
        return nnx.Param(draw(self.rngs.params(), shape))

    def embedding(self, entries: int, features: int) -> nnx.Embed:
        """Integer → [features]."""
        return nnx.Embed(
            entries,
            features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            **self._drawn("embedding"),
        )


def timestep_features(
    timestep: Int[Array, ""] | Float[Array, ""],
    features: int,
    *,
    flip_sin_to_cos: bool = True,
    freq_shift: float = 0.0,
) -> Float[Array, " features"]:
    """Sinusoids of a timestep, float32: ω_i = 10000^(−i / (features/2 − shift)).

    Source: Vaswani et al. 2017; ordering, shift and the zero after an odd number as
    diffusers' ``Timesteps``.
    """
    half = features // 2
    i = jnp.arange(half, dtype=jnp.float32)
    angle = timestep * jnp.exp(-jnp.log(10000.0) * i / max(half - freq_shift, 1))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    waves = [cos, sin] if flip_sin_to_cos else [sin, cos]
    return jnp.pad(jnp.concatenate(waves), (0, features % 2))


class TimestepEmbedding(nnx.Module):
    """Two-layer MLP over timestep features."""

    def __init__(self, inputs: int, features: int, make: Make) -> None:
        self.linear_1 = make.linear(inputs, features)
        self.linear_2 = make.linear(features, features)

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        """[inputs] → [features]."""
        return self.linear_2(jax.nn.silu(self.linear_1(x)))


class Attention(nnx.Module):
    """Multi-head attention of [l, d] over itself or over a condition [m, e]."""

    def __init__(
        self,
        features: int,
        heads: int,
        make: Make,
        *,
        condition_features: int | None = None,
        bias: bool = False,
    ) -> None:
        if features % heads:
            raise DiffjaxError(f"{features} features do not divide into {heads} heads.")
        self.heads = heads
        source = features if condition_features is None else condition_features
        self.to_q = make.linear(features, features, bias)
        self.to_k = make.linear(source, features, bias)
        self.to_v = make.linear(source, features, bias)
        self.to_out = make.linear(features, features)

    def __call__(
        self, x: Float[Array, "l d"], condition: Float[Array, "m e"] | None = None
    ) -> Float[Array, "l d"]:
        """Self-attention, or cross-attention where a condition is given."""
        source = x if condition is None else condition
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        return self.to_out(attend(q, k, v, self.heads))


class FeedForward(nnx.Module):
    """linear → activation → linear, four times as wide in between."""

    def __init__(self, features: int, activation: Activation, make: Make) -> None:
        self.proj_in = make.linear(features, 4 * features)
        self.proj_out = make.linear(4 * features, features)
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Float[Array, "l d"]) -> Float[Array, "l d"]:
        """[l, d] → [l, d]."""
        return self.proj_out(self.activation(self.proj_in(x)))


class ResnetBlock2D(nnx.Module):
    """norm → silu → conv, plus the timestep embedding, norm → silu → conv, plus x."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        make: Make,
        *,
        groups: int,
        epsilon: float,
        embedding: int | None = None,
    ) -> None:
        self.norm1 = make.group_norm(inputs, groups, epsilon)
        self.conv1 = make.conv(inputs, outputs, 3)
        if embedding is not None:
            self.time_emb_proj = make.linear(embedding, outputs)
        self.norm2 = make.group_norm(outputs, groups, epsilon)
        self.conv2 = make.conv(outputs, outputs, 3)
        self.projects = inputs != outputs
        if self.projects:
            self.conv_shortcut = make.conv(inputs, outputs, 1)

    def __call__(
        self, x: Float[Array, "h w i"], embedding: Float[Array, " e"] | None = None
    ) -> Float[Array, "h w o"]:
        """[h, w, inputs] → [h, w, outputs]."""
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        if embedding is not None:
            h = h + self.time_emb_proj(jax.nn.silu(embedding))
        h = self.conv2(jax.nn.silu(self.norm2(h)))
        return (self.conv_shortcut(x) if self.projects else x) + h


class Downsample2D(nnx.Module):
    """Halves height and width by a strided convolution."""

    def __init__(self, channels: int, make: Make, *, padding: tuple[int, int]) -> None:
        self.conv = make.conv(channels, channels, 3, stride=2, padding=padding)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 c"]:
        """[h, w, c] → [h/2, w/2, c], rounded by the padding."""
        return self.conv(x)


class Upsample2D(nnx.Module):
    """Doubles height and width (nearest neighbour), then convolves."""

    def __init__(self, channels: int, make: Make) -> None:
        self.conv = make.conv(channels, channels, 3)

    def __call__(
        self, x: Float[Array, "h w c"], size: tuple[int, int] | None = None
    ) -> Float[Array, "h2 w2 c"]:
        """Upsample to ``size``, default (2h, 2w)."""
        for axis, n in enumerate(size or (2 * x.shape[0], 2 * x.shape[1])):
            m = x.shape[axis]
            if n == 2 * m:
                x = x.repeat(2, axis)  # cheaper than a gather
            else:
                x = x.take(np.arange(n) * m // n, axis, mode="clip")
        return self.conv(x)
