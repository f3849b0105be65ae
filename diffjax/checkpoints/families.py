"""Families of text models: which text encoders they have, and what a prompt becomes.

    family          states                                           pooled
    SD 1, 2         after the final norm                             none
    XL              CLIP-L ‖ CLIP-bigG, each before its last layer   bigG's projection
    3, 3.5          the same, filled up to T5's width; then T5's     both projections
    FLUX.1          T5's                                             CLIP-L's state at
                                                                     the end of the text
    PixArt          T5's, of the text alone: with a mask             none

‖ is along the features, "then" along the tokens. Without its T5, Stable Diffusion 3 is
given zeros, as by diffusers' pipeline. PixArt's prompts are in lower case and without
space around them. The lengths of T5's prompts are the pipelines' defaults, and for
FLUX.1 schnell the one that it was trained with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.models.clip import TextOutput
from diffjax.models.diffusion import DiffusionModel
from diffjax.models.flux import TOKENS as FLUX_TOKENS
from diffjax.models.flux import FluxCondition, FluxTransformer2DConfig
from diffjax.models.mmdit import TOKENS as SD3_TOKENS
from diffjax.models.mmdit import JointCondition, SD3Transformer2DConfig
from diffjax.models.pixart import TOKENS as PIXART_TOKENS
from diffjax.models.pixart import MaskedCondition, PixArtTransformer2DConfig
from diffjax.models.t5 import MaskedStates
from diffjax.models.unet import PooledCondition, TextCondition
from diffjax.models.unet_config import UNet2DConditionConfig

CLIP_TOKENS = 77
SCHNELL_TOKENS = 256
ALPHA_TOKENS = 120
CLIP, PROJECTED = "CLIPTextModel", "CLIPTextModelWithProjection"
T5 = "T5EncoderModel"
GUIDANCE = 3.5  # diffusers' default of the dev model


class Encoder(NamedTuple):
    """A text encoder of a family.

    Attributes:
        tokenizer: its component.
        network: what runs it, a key of ``networks.NETWORKS``.
        length: of its prompts, where its config does not say.
        lower: whether prompts are put in lower case, without space around them.
    """

    tokenizer: str
    network: str
    length: int | None = None
    lower: bool = False


@dataclass(frozen=True, kw_only=True)
class TextFamily:
    """How a family makes conditions of prompts.

    Attributes:
        encoders: components that are text encoders.
        combine: what they give of one prompt, in this order → its condition.
        sizes: whether an image tells the denoiser its size besides.
        settings: of the pipeline, that decide conditions; plain JSON values.
    """

    encoders: Mapping[str, Encoder]
    combine: Callable[..., Any]
    sizes: bool = False
    settings: Mapping[str, Any] | None = None


def last_states(text: TextOutput) -> TextCondition:
    """The states after the final norm."""
    return TextCondition(text.states)


def penultimate_states(first: TextOutput, second: TextOutput) -> PooledCondition:
    """The states before the last layers side by side, and the second one's pooled."""
    assert second.pooled is not None
    both = [first.penultimate, second.penultimate]
    return PooledCondition(jnp.concatenate(both, axis=-1), second.pooled)


@dataclass(frozen=True)
class JointStates:
    """The condition of Stable Diffusion 3, whose states are of this width."""

    width: int

    def __call__(
        self,
        first: TextOutput,
        second: TextOutput,
        third: Float[Array, "m d"] | None = None,
    ) -> JointCondition:
        """What CLIP-L, CLIP-bigG and, if it is there, T5 say of one prompt."""
        assert first.pooled is not None and second.pooled is not None
        clip = jnp.concatenate([first.penultimate, second.penultimate], axis=-1)
        clip = jnp.pad(clip, [(0, 0), (0, self.width - clip.shape[-1])])
        if third is None:
            third = jnp.zeros((SD3_TOKENS - CLIP_TOKENS, self.width))
        pooled = jnp.concatenate([first.pooled, second.pooled])
        return JointCondition(jnp.concatenate([clip, third]), pooled)


@dataclass(frozen=True)
class FluxStates:
    """The condition of FLUX, with this guidance if the network is told one."""

    guidance: float | None

    def __call__(self, clip: TextOutput, t5: Float[Array, "m d"]) -> FluxCondition:
        """What CLIP-L and T5 say of one prompt."""
        assert clip.pooled is not None
        guidance = None if self.guidance is None else jnp.float32(self.guidance)
        return FluxCondition(t5, clip.pooled, guidance)


def masked_states(text: MaskedStates) -> MaskedCondition:
    """T5's states with their mask."""
    return MaskedCondition(*text)


def pixart(pipeline: str) -> TextFamily:
    """PixArt-α, or -Σ, which takes longer prompts."""
    length = ALPHA_TOKENS if "Alpha" in pipeline else PIXART_TOKENS
    network = "MaskedT5EncoderModel"
    encoder = Encoder("tokenizer", network, length, lower=True)
    return TextFamily(encoders={"text_encoder": encoder}, combine=masked_states)


STABLE_DIFFUSION = TextFamily(
    encoders={"text_encoder": Encoder("tokenizer", CLIP)}, combine=last_states
)
STABLE_DIFFUSION_XL = TextFamily(
    encoders={
        "text_encoder": Encoder("tokenizer", CLIP),
        "text_encoder_2": Encoder("tokenizer_2", PROJECTED),
    },
    combine=penultimate_states,
    sizes=True,
)


def stable_diffusion_3(config: SD3Transformer2DConfig, *, t5: bool) -> TextFamily:
    """Stable Diffusion 3 or 3.5, with its T5 or without."""
    encoders = {
        "text_encoder": Encoder("tokenizer", PROJECTED),
        "text_encoder_2": Encoder("tokenizer_2", PROJECTED),
        "text_encoder_3": Encoder("tokenizer_3", T5, SD3_TOKENS - CLIP_TOKENS),
    }
    if not t5:
        del encoders["text_encoder_3"]
    return TextFamily(
        encoders=encoders,
        combine=JointStates(config.joint_attention_dim),
        settings={"text_encoder_3": t5},
    )


def flux(config: FluxTransformer2DConfig, guidance: float | None) -> TextFamily:
    """FLUX.1 dev, with a guidance, or schnell."""
    if not config.guidance_embeds:
        guidance, length = None, SCHNELL_TOKENS
    else:
        guidance, length = GUIDANCE if guidance is None else guidance, FLUX_TOKENS
    return TextFamily(
        encoders={
            "text_encoder": Encoder("tokenizer", "CLIPTextModelPooled"),
            "text_encoder_2": Encoder("tokenizer_2", T5, length),
        },
        combine=FluxStates(guidance),
        settings=None if guidance is None else {"guidance": guidance},
    )


def family_of(
    denoiser: Any,
    *,
    pipeline: str = "",
    t5: bool = True,
    guidance: float | None = None,
) -> TextFamily | None:
    """The family of a denoiser by its config; None for one that takes class ids.

    Args:
        denoiser: its config.
        pipeline: the class of the pipeline.
        t5: whether T5 is there, where a family can do without.
        guidance: what a denoiser is told that is told one; None for the default.
    """
    if isinstance(denoiser, SD3Transformer2DConfig):
        return stable_diffusion_3(denoiser, t5=t5)
    if isinstance(denoiser, FluxTransformer2DConfig):
        return flux(denoiser, guidance)
    if isinstance(denoiser, PixArtTransformer2DConfig):
        return pixart(pipeline)
    if isinstance(denoiser, UNet2DConditionConfig):
        told = denoiser.addition_embed_type
        return STABLE_DIFFUSION_XL if told else STABLE_DIFFUSION
    return None


def with_guidance(model: DiffusionModel, guidance: float) -> DiffusionModel:
    """A FLUX.1 dev that is told another guidance."""
    conditioner = replace(
        model.text_conditioner,
        combine=FluxStates(guidance),
        settings=model.text_conditioner.settings | {"guidance": guidance},
    )
    return replace(model, conditioner=conditioner)
