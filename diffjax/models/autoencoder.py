"""The variational autoencoder of Stable Diffusion: pixels ⇄ latents.

    encode: pixels [H, W, 3] → mean, log variance [H/f, W/f, c],  f = 2^(levels − 1)
    decode: latent [h, w, c] → pixels [f h, f w, 3]

The classifier uses the posterior MEAN times ``scaling_factor``. Rombach et al. 2022;
layers, names and config keys as diffusers' ``AutoencoderKL``.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.models.config import Count, NetworkConfig, Offset, Scale, Width, per_block
from diffjax.models.layers import (
    Attention,
    Downsample2D,
    GroupNorm,
    Make,
    ResnetBlock2D,
    Upsample2D,
)

EPSILON = 1e-6  # of every group norm; no config names it

_FIXED: dict[str, Any] = {
    "act_fn": ("silu", "swish"),
    "latents_mean": None,
    "latents_std": None,
}
_IGNORED = {
    "force_upcast": "the autoencoder always computes in float32",
    "sample_size": "any size runs",
}


@dataclass(frozen=True, kw_only=True)
class AutoencoderKLConfig(NetworkConfig):
    """The settings of a ``vae/config.json`` that are implemented."""

    fixed, ignored = _FIXED, _IGNORED

    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    down_block_types: tuple[Literal["DownEncoderBlock2D"], ...] = (
        "DownEncoderBlock2D",
    )
    up_block_types: tuple[Literal["UpDecoderBlock2D"], ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[Width, ...] = (64,)
    layers_per_block: Count = 1
    latent_channels: Count = 4
    norm_num_groups: Count = 32
    scaling_factor: Scale = 0.18215
    shift_factor: Offset | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def check(self, source: str) -> None:
        """Raise DiffjaxError for settings that do not fit one another."""
        n = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            per_block(getattr(self, name), n, f"{source}: {name}")

    @property
    def downscale(self) -> int:
        """f: pixels per latent cell along each edge."""
        return int(2 ** (len(self.block_out_channels) - 1))


class PixelAttention(nnx.Module):
    """Single-head self-attention over the pixels of a feature map, with residual."""

    def __init__(self, channels: int, groups: int, make: Make) -> None:
        self.group_norm: GroupNorm = make.group_norm(channels, groups, EPSILON)
        self.attention = Attention(channels, 1, make, bias=True)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """[h, w, c] → [h, w, c]."""
        tokens = self.group_norm(x).reshape(-1, x.shape[-1])
        return x + self.attention(tokens).reshape(x.shape)


class MidBlock(nnx.Module):
    """resnet, attention (if configured), resnet."""

    def __init__(self, channels: int, config: AutoencoderKLConfig, make: Make) -> None:
        self.resnets = _resnets([channels] * 3, config, make)
        self.attentions: nnx.List[PixelAttention] = nnx.List([])
        if config.mid_block_add_attention:
            self.attentions.append(
                PixelAttention(channels, config.norm_num_groups, make)
            )

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """[h, w, c] → [h, w, c]."""
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class DownBlock(nnx.Module):
    """Resnets, then a halving unless it is the last block."""

    def __init__(
        self, widths: list[int], config: AutoencoderKLConfig, make: Make, *, last: bool
    ) -> None:
        self.resnets = _resnets(widths, config, make)
        # the autoencoder pads the bottom and right edges only
        self.downsamplers = nnx.List(
            [] if last else [Downsample2D(widths[-1], make, padding=(0, 1))]
        )

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h2 w2 o"]:
        """[h, w, inputs] → [h/2, w/2, outputs]."""
        for layer in [*self.resnets, *self.downsamplers]:
            x = layer(x)
        return x


class UpBlock(nnx.Module):
    """Resnets, then a doubling unless it is the last block."""

    def __init__(
        self, widths: list[int], config: AutoencoderKLConfig, make: Make, *, last: bool
    ) -> None:
        self.resnets = _resnets(widths, config, make)
        self.upsamplers = nnx.List([] if last else [Upsample2D(widths[-1], make)])

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h2 w2 o"]:
        """[h, w, inputs] → [2h, 2w, outputs]."""
        for layer in [*self.resnets, *self.upsamplers]:
            x = layer(x)
        return x


class Encoder(nnx.Module):
    """Pixels → 2c channels: mean and log variance before ``quant_conv``."""

    def __init__(self, config: AutoencoderKLConfig, make: Make) -> None:
        widths = config.block_out_channels
        n, layers = len(widths), config.layers_per_block
        self.conv_in = make.conv(config.in_channels, widths[0], 3)
        self.down_blocks = nnx.List(
            [
                DownBlock(
                    [widths[max(0, i - 1)], *(widths[i],) * layers],
                    config,
                    make,
                    last=i == n - 1,
                )
                for i in range(n)
            ]
        )
        self.mid_block = MidBlock(widths[-1], config, make)
        self.conv_norm_out = make.group_norm(
            widths[-1], config.norm_num_groups, EPSILON
        )
        self.conv_out = make.conv(widths[-1], 2 * config.latent_channels, 3)

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h2 w2 o"]:
        """[H, W, 3] → [H/f, W/f, 2c]."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class Decoder(nnx.Module):
    """Latent → pixels."""

    def __init__(self, config: AutoencoderKLConfig, make: Make) -> None:
        widths = config.block_out_channels[::-1]
        n, layers = len(widths), config.layers_per_block + 1
        self.conv_in = make.conv(config.latent_channels, widths[0], 3)
        self.mid_block = MidBlock(widths[0], config, make)
        self.up_blocks = nnx.List(
            [
                UpBlock(
                    [widths[max(0, i - 1)], *(widths[i],) * layers],
                    config,
                    make,
                    last=i == n - 1,
                )
                for i in range(n)
            ]
        )
        self.conv_norm_out = make.group_norm(
            widths[-1], config.norm_num_groups, EPSILON
        )
        self.conv_out = make.conv(widths[-1], config.out_channels, 3)

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h2 w2 o"]:
        """[h, w, c] → [f h, f w, 3]."""
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class AutoencoderKL(nnx.Module):
    """Pixels ⇄ latents, one image at a time."""

    def __init__(
        self,
        config: AutoencoderKLConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.config = config
        self.dtype = dtype
        c = config.latent_channels
        self.encoder = Encoder(config, make)
        self.decoder = Decoder(config, make)
        if config.use_quant_conv:
            self.quant_conv = make.conv(2 * c, 2 * c, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = make.conv(c, c, 1)

    def encode(
        self, pixels: Float[Array, "H W 3"]
    ) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"]]:
        """The posterior's mean and log variance (clipped to [−30, 20]), unscaled.

        Args:
            pixels: in [−1, 1].
        """
        x = self.encoder(pixels.astype(self.dtype))
        if self.config.use_quant_conv:
            x = self.quant_conv(x)
        mean, logvar = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latent: Float[Array, "h w c"]) -> Float[Array, "H W 3"]:
        """Pixels, about [−1, 1] (not clipped), of an unscaled latent."""
        x = latent.astype(self.dtype)
        if self.config.use_post_quant_conv:
            x = self.post_quant_conv(x)
        return self.decoder(x).astype(jnp.float32)


def _resnets(
    widths: list[int], config: AutoencoderKLConfig, make: Make
) -> nnx.List[ResnetBlock2D]:
    layer = partial(
        ResnetBlock2D, make=make, groups=config.norm_num_groups, epsilon=EPSILON
    )
    return nnx.List([layer(*each) for each in pairwise(widths)])
