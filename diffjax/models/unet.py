"""The U-Net of Stable Diffusion 1.x, 2.x and XL: (z_t, t, condition) → prediction.

    e = MLP(sinusoids(t))
    e = e + MLP(pooled state ‖ sinusoids(sizes))          (XL)
    down: resnets (+ transformers over the condition), each output kept as a skip
    mid:  resnet, transformer, resnet
    up:   concatenate the skips in reverse, resnets (+ transformers)

Rombach et al. 2022, Podell et al. 2023; layers, names and config keys as diffusers'
``UNet2DConditionModel``.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.models.attention import kept_channels, matrix_elements
from diffjax.models.config import per_block
from diffjax.models.layers import (
    Downsample2D,
    Make,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    timestep_features,
)
from diffjax.models.transformer import Transformer2DModel
from diffjax.models.unet_config import SIZES, UNet2DConditionConfig

TOKENS = 77  # of CLIP, in every Stable Diffusion


class TextCondition(NamedTuple):
    """What the U-Net is told of a prompt.

    Attributes:
        states: text states [m, cross_attention_dim], of every token.
    """

    states: Float[Array, "m d"]


class PooledCondition(NamedTuple):
    """What the U-Net of Stable Diffusion XL is told of a prompt, and of an image.

    Attributes:
        states: text states [m, cross_attention_dim], of every token.
        pooled: one state [p] of the whole prompt.
        sizes: height and width of the original image, top and left of the crop, height
            and width that were aimed at, in pixels: int32 [6]. None for a prompt
            alone: an image says them (see ``conditions.told_of``).
    """

    states: Float[Array, "m d"]
    pooled: Float[Array, " p"]
    sizes: Int[Array, " 6"] | None = None


Condition = TextCondition | PooledCondition


@dataclass(frozen=True)
class Parts:
    """What the blocks of a U-Net are made of."""

    config: UNet2DConditionConfig
    embedding: int  # features of the timestep's
    make: Make

    def resnet(self, inputs: int, outputs: int) -> ResnetBlock2D:
        """A resnet that is told the timestep."""
        return ResnetBlock2D(
            inputs,
            outputs,
            self.make,
            groups=self.config.norm_num_groups,
            epsilon=self.config.norm_eps,
            embedding=self.embedding,
        )

    def transformer(self, channels: int, heads: int, layers: int) -> Transformer2DModel:
        """A transformer of so many layers over the condition."""
        config = self.config
        return Transformer2DModel(
            channels,
            heads,
            config.cross_attention_dim,
            config.norm_num_groups,
            self.make,
            layers=layers,
        )


class Attends(NamedTuple):
    """What the transformers of a block are like."""

    heads: int
    layers: int


class Block2D(nnx.Module):
    """The resnets of one resolution, each followed by a transformer if it attends."""

    def __init__(
        self, parts: Parts, channels: list[tuple[int, int]], attends: Attends | None
    ) -> None:
        self.resnets = nnx.List([parts.resnet(*each) for each in channels])
        self.attends = attends is not None
        if attends is not None:
            self.attentions = nnx.List(
                [parts.transformer(outputs, *attends) for _, outputs in channels]
            )

    def layer(
        self,
        i: int,
        x: Float[Array, "h w i"],
        embedding: Float[Array, " e"],
        condition: Float[Array, "m d"],
    ) -> Float[Array, "h w o"]:
        """The i-th resnet, with its transformer where there is one."""
        x = self.resnets[i](x, embedding)
        return self.attentions[i](x, condition) if self.attends else x


class DownBlock2D(Block2D):
    """A ``Block2D``, then a halving unless it is the last one."""

    def __init__(
        self,
        parts: Parts,
        channels: list[tuple[int, int]],
        attends: Attends | None,
        *,
        last: bool,
    ) -> None:
        super().__init__(parts, channels, attends)
        self.downsamplers: nnx.List[Downsample2D] = nnx.List([])
        if not last:
            # padding 0 in a config means: pad the bottom and right only
            padding = (parts.config.downsample_padding, 1)
            self.downsamplers.append(
                Downsample2D(channels[-1][1], parts.make, padding=padding)
            )

    def __call__(
        self,
        x: Float[Array, "h w i"],
        embedding: Float[Array, " e"],
        condition: Float[Array, "m d"],
    ) -> list[Array]:
        """Every layer's output, which are the skips; the last one goes on."""
        skips = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, embedding, condition)
            skips.append(x)
        for downsample in self.downsamplers:
            skips.append(downsample(x))
        return skips


class UpBlock2D(Block2D):
    """A ``Block2D`` whose resnets take a skip each, then a doubling unless last."""

    def __init__(
        self,
        parts: Parts,
        channels: list[tuple[int, int]],
        attends: Attends | None,
        *,
        last: bool,
    ) -> None:
        super().__init__(parts, channels, attends)
        self.upsamplers: nnx.List[Upsample2D] = nnx.List([])
        if not last:
            self.upsamplers.append(Upsample2D(channels[-1][1], parts.make))

    def __call__(
        self,
        x: Float[Array, "h w i"],
        skips: list[Array],
        embedding: Float[Array, " e"],
        condition: Float[Array, "m d"],
    ) -> Float[Array, "h2 w2 o"]:
        """Consumes as many of ``skips``, from its end, as there are resnets."""
        for i in range(len(self.resnets)):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = self.layer(i, x, embedding, condition)
        for upsample in self.upsamplers:
            # the next skip's size, which is odd where the way down rounded up
            height, width, _ = skips[-1].shape
            x = upsample(x, (height, width))
        return x


class MidBlock2D(Block2D):
    """resnet, transformer, resnet."""

    def __init__(self, parts: Parts, channels: int, attends: Attends) -> None:
        super().__init__(parts, [(channels, channels)] * 2, None)
        self.attentions = nnx.List([parts.transformer(channels, *attends)])

    def __call__(
        self,
        x: Float[Array, "h w c"],
        embedding: Float[Array, " e"],
        condition: Float[Array, "m d"],
    ) -> Float[Array, "h w c"]:
        """[h, w, c] → [h, w, c]."""
        x = self.resnets[0](x, embedding)
        x = self.attentions[0](x, condition)
        return self.resnets[1](x, embedding)


class UNet2DConditionModel(nnx.Module):
    """Predicts ε (or v, or z0: the schedule says which) for one noised latent."""

    def __init__(
        self,
        config: UNet2DConditionConfig,
        *,
        rngs: nnx.Rngs | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        make = Make(rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.config = config
        self.dtype = dtype
        widths = config.block_out_channels
        n = len(widths)
        layers = per_block(config.layers_per_block, n, "layers_per_block")
        attends = [
            Attends(*each)
            for each in zip(
                per_block(config.attention_head_dim, n, "attention_head_dim"),
                per_block(
                    config.transformer_layers_per_block,
                    n,
                    "transformer_layers_per_block",
                ),
                strict=True,
            )
        ]
        embedding = config.time_embedding_dim or 4 * widths[0]

        self.conv_in = make.conv(config.in_channels, widths[0], 3)
        self.time_embedding = TimestepEmbedding(widths[0], embedding, make)
        if config.addition_embed_type is not None:
            inputs = config.projection_class_embeddings_input_dim
            assert inputs is not None  # or the config would have been refused
            self.add_embedding = TimestepEmbedding(inputs, embedding, make)
        parts = Parts(config, embedding, make)

        # the channels of every skip, in the order in which the way down makes them
        skips = [widths[0]]
        down_blocks = []
        for i, down_type in enumerate(config.down_block_types):
            entering = [skips[-1]] + [widths[i]] * (layers[i] - 1)
            last = i == n - 1
            down_blocks.append(
                DownBlock2D(
                    parts,
                    [(c, widths[i]) for c in entering],
                    attends[i] if down_type == "CrossAttnDownBlock2D" else None,
                    last=last,
                )
            )
            skips += [widths[i]] * (layers[i] + (not last))
        self.down_blocks = nnx.List(down_blocks)

        self.mid_block = MidBlock2D(parts, widths[-1], attends[-1])

        up_blocks = []
        below = widths[-1]
        for i, up_type in enumerate(config.up_block_types):
            level = n - 1 - i
            entering = [below] + [widths[level]] * layers[level]
            up_blocks.append(
                UpBlock2D(
                    parts,
                    [(c + skips.pop(), widths[level]) for c in entering],
                    attends[level] if up_type == "CrossAttnUpBlock2D" else None,
                    last=i == n - 1,
                )
            )
            below = widths[level]
        self.up_blocks = nnx.List(up_blocks)

        make, groups = make.precise(), config.norm_num_groups
        self.conv_norm_out = make.group_norm(widths[0], groups, config.norm_eps)
        self.conv_out = make.conv(widths[0], config.out_channels, 3)

    def memory(self, height: int, width: int) -> int:
        """Bytes that one more forward pass takes in a tile, about.

        Where attention is not fused, two of its matrices are there, in float32. What
        compilers for accelerators say is as much, or less by a third or so.
        """
        widths, n = self.config.block_out_channels, len(self.config.block_out_channels)
        heads = per_block(self.config.attention_head_dim, n, "attention_head_dim")
        blocks = [*zip(self.down_blocks, self.up_blocks[::-1], strict=True)]
        matrix: int = max(
            matrix_elements(
                self.dtype,
                heads[i],
                widths[i] // heads[i],
                -(-height // 2**i) * -(-width // 2**i),
            )
            for i in range(n)
            if i == n - 1 or any(block.attends for block in blocks[i])
        )
        # Of the first feature map's size, where the largest layers are: what is between
        # the two products of a feed-forward is 8 + 4, the rest are skips and residuals.
        maps = 20 * height * width * kept_channels(widths[0])
        return 4 * 2 * matrix + jnp.dtype(self.dtype).itemsize * maps

    def vectors(self, condition: Condition) -> Condition:
        """The condition itself: its prompt is of floating numbers."""
        return condition

    def condition_shapes(self) -> Condition:
        """Shapes of a condition, as published models are given it."""
        config = self.config
        states = _shape((TOKENS, config.cross_attention_dim), jnp.float32)
        if config.addition_embed_type is None:
            return TextCondition(states)
        pooled = _shape((config.pooled_width,), jnp.float32)
        return PooledCondition(states, pooled, _shape((SIZES,), jnp.int32))

    def sinusoids(self, x: Int[Array, ""] | Float[Array, ""], features: int) -> Array:
        """Of a timestep or a size, float32."""
        return timestep_features(
            x,
            features,
            flip_sin_to_cos=self.config.flip_sin_to_cos,
            freq_shift=self.config.freq_shift,
        )

    def embedding(
        self, timestep: Int[Array, ""] | Float[Array, ""], condition: Condition
    ) -> Float[Array, " e"]:
        """What every resnet is told."""
        features = self.sinusoids(timestep, self.config.block_out_channels[0])
        embedding: Array = self.time_embedding(features.astype(self.dtype))
        if self.config.addition_embed_type is None:
            return embedding
        assert isinstance(condition, PooledCondition) and condition.sizes is not None
        features_of_size = self.config.addition_time_embed_dim
        assert features_of_size is not None
        waves = jax.vmap(self.sinusoids, in_axes=(0, None))(
            condition.sizes, features_of_size
        )
        pooled = condition.pooled.astype(jnp.float32)
        more = jnp.concatenate([pooled, waves.reshape(-1)])
        return embedding + self.add_embedding(more.astype(self.dtype))

    def __call__(
        self,
        latent: Float[Array, "h w c"],
        timestep: Int[Array, ""] | Float[Array, ""],
        condition: Condition,
    ) -> Float[Array, "h w o"]:
        """Predict from one noised latent.

        Args:
            latent: z_t, [h, w, in_channels], scaled, any h and w.
            timestep: what the schedule has it told: t, or a flow's time.
            condition: of one prompt; with ``addition_embed_type`` a pooled one.

        Returns:
            [h, w, out_channels], float32.
        """
        embedding = self.embedding(timestep, condition)
        states = condition.states.astype(self.dtype)
        x = self.conv_in(latent.astype(self.dtype))
        skips = [x]
        for down_block in self.down_blocks:
            skips += down_block(skips[-1], embedding, states)
        x = self.mid_block(skips[-1], embedding, states)
        for up_block in self.up_blocks:
            x = up_block(x, skips, embedding, states)
        output: Array = self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
        return output


def _shape(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)
