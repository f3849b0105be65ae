"""The components of pipelines that are read, each with its files: the one table.

What is not in it, as the safety checker, is never fetched nor missed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# The stem that diffusers gives its own models, and the one of transformers.
DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"


@dataclass(frozen=True, kw_only=True)
class Component:
    """What a component is.

    Attributes:
        files: names of the files that describe it.
        stem: of its weights' file names; None for what has no weights.
        networks: the classes that its config.json may name, and for each the network
            that runs it (a key of ``networks.NETWORKS``); the first one where
            config.json names none.
        replaced: whether it may come from elsewhere, by an option of its name.
    """

    files: re.Pattern[str] = re.compile(r"config\.json")
    stem: str | None = None
    networks: Mapping[str, str] = field(default_factory=dict)
    replaced: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that config.json may name."""
        return tuple(self.networks)


_TOKENIZER = Component(files=re.compile(r"[^/]+\.(json|txt|model)"))

COMPONENTS: dict[str, Component] = {
    "unet": Component(
        stem=DIFFUSERS_STEM,
        networks={"UNet2DConditionModel": "UNet2DConditionModel"},
    ),
    "transformer": Component(
        stem=DIFFUSERS_STEM,
        networks={
            "DiTTransformer2DModel": "DiTTransformer2DModel",
            # published files still carry the class that diffusers split later; which
            # part of it they mean is said by ``SPLIT``
            "Transformer2DModel": "DiTTransformer2DModel",
            "SD3Transformer2DModel": "SD3Transformer2DModel",
            "FluxTransformer2DModel": "FluxTransformer2DModel",
            "PixArtTransformer2DModel": "PixArtTransformer2DModel",
        },
    ),
    "vae": Component(stem=DIFFUSERS_STEM, networks={"AutoencoderKL": "AutoencoderKL"}),
    "text_encoder": Component(
        stem=TRANSFORMERS_STEM,
        networks={
            "CLIPTextModel": "CLIPTextModel",
            # whose projection is not used, unless the family asks for it
            "CLIPTextModelWithProjection": "CLIPTextModel",
            "T5EncoderModel": "MaskedT5EncoderModel",
        },
    ),
    "text_encoder_2": Component(
        stem=TRANSFORMERS_STEM,
        networks={
            "CLIPTextModelWithProjection": "CLIPTextModelWithProjection",
            "T5EncoderModel": "T5EncoderModel",
        },
    ),
    "text_encoder_3": Component(
        stem=TRANSFORMERS_STEM, networks={"T5EncoderModel": "T5EncoderModel"}
    ),
    "tokenizer": _TOKENIZER,
    "tokenizer_2": _TOKENIZER,
    "tokenizer_3": _TOKENIZER,
    "scheduler": Component(files=re.compile(r"scheduler_config\.json"), replaced=False),
}
# the classes of today, by the norm_type of a config that names the one of old
SPLIT = {
    "Transformer2DModel": {
        "ada_norm_zero": "DiTTransformer2DModel",
        "ada_norm_single": "PixArtTransformer2DModel",
    }
}
# families, for messages
RUNS = "Stable Diffusion 1.x, 2.x, XL, 3 and 3.5, FLUX.1, PixArt, DiT, SiT and REPA"
# those that have weights: the stem of their file names
STEMS = {name: each.stem for name, each in COMPONENTS.items() if each.stem}


def option(component: str) -> str:
    """The option of the command line that takes it from elsewhere."""
    return f"--{component.replace('_', '-')}"


def holding(cls: str) -> str | None:
    """The component that holds a network of a class; None for an unknown class."""
    known = [name for name, each in COMPONENTS.items() if cls in each.networks]
    # where two may, the one that needs the class
    return max(
        known, key=lambda name: COMPONENTS[name].networks[cls] == cls, default=None
    )
