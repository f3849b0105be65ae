"""A name → a ``DiffusionModel`` with its weights.

``load_model("sd-2-base")`` or a folder, or a Hugging Face id; parts can come from
elsewhere: ``load_model("sd-1.5", unet="my-fine-tuned-unet")``.
"""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from diffjax.checkpoints import fitting, single_file
from diffjax.checkpoints.bare import bare_parts
from diffjax.checkpoints.catalog import ASSETS
from diffjax.checkpoints.components import COMPONENTS, RUNS, STEMS
from diffjax.checkpoints.conditioning import load_conditioner
from diffjax.checkpoints.families import TextFamily, family_of
from diffjax.checkpoints.lora import Loras
from diffjax.checkpoints.networks import (
    claimed,
    load_network,
    network_config,
    read_json,
)
from diffjax.checkpoints.parts import REPLACED, Parts, spelled_out
from diffjax.checkpoints.resolving import (
    require_variant,
    resolve,
    resolve_component,
    whole_file,
    whole_parts,
)
from diffjax.checkpoints.temperatures import temperatures_in
from diffjax.checkpoints.textual_inversion import learned, read_words
from diffjax.choices import DTYPES
from diffjax.data.kept import KeptArrays
from diffjax.errors import DiffjaxError, unknown
from diffjax.models.config import differing
from diffjax.models.diffusion import DiffusionModel, largest_resolution
from diffjax.models.limits import Limits

LIMITS = "limits.json"  # of the models in the package
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "DiTPipeline",
    "SiTPipeline",
    "REPAPipeline",
)
NONE = "none"  # in place of a part that a pipeline can do without
OPTIONAL = {"text_encoder_3": "tokenizer_3"}


@spelled_out
def load_model(
    name_or_path: str | Path = "tiny",
    *,
    dtype: DTypeLike = "auto",
    **parts: Unpack[Parts],
) -> DiffusionModel:
    """Load a model with its weights.

    Args:
        name_or_path: A folder in the diffusers layout, a name of ``diffjax models``,
            or a Hugging Face id; of a whole pipeline of Stable Diffusion (1, 2, XL, 3,
            3.5), FLUX.1, PixArt, DiT, SiT or REPA. Or a single file of a whole Stable
            Diffusion 1, 2 or XL. A path that exists comes first.
        dtype: Number type in which the denoiser computes and keeps its weights; "auto"
            is bfloat16 on accelerators and float32 on a CPU. Autoencoder and text
            encoder, which run once an image or prompt, stay in float32, but for T5 on
            accelerators.
        **parts: Parts to take from elsewhere, and how to reach the Hub; see ``Parts``.

    Raises:
        DiffjaxError: If the model cannot be found, read, or run; it says what to do.
    """
    asked: dict[str, Any] = {**parts}
    named = {name: asked.pop(name, None) for name in REPLACED}
    revision, cache = asked.pop("revision", None), asked.pop("prompt_cache", None)
    loras = Loras(listed(asked.pop("lora", None)))
    words = read_words(listed(asked.pop("textual_inversion", None)))
    guidance, shift = (
        None if (value := asked.pop(name, None)) is None else float(value)
        for name in ("guidance", "shift")  # 3 and 3.0 are one setting
    )
    variant = asked.get("variant")
    left_out = {name for name in OPTIONAL if named.get(name) == NONE}
    told = {c: str(place) for c, place in named.items() if place}
    named |= dict.fromkeys(left_out)
    elsewhere = {
        name: resolve_component(place, name, **asked)
        for name, place in named.items()
        if place is not None
    }
    elsewhere |= bare_parts(name_or_path, elsewhere, **asked)
    dtype = compute_dtype(dtype)
    weights = {name: place for name, place in elsewhere.items() if place.is_file()}
    elsewhere = {n: place for n, place in elsewhere.items() if n not in weights}
    place, scheduled = name_or_path, {}
    if (whole := whole_file(name_or_path)) is not None:
        file, layout = whole
        place, scheduled = layout.folder, layout.schedule
        weights, elsewhere = whole_parts(file, layout, weights, elsewhere, **asked)
    held = {v for file in weights.values() for v in single_file.variants_in(file)}
    if variant in held:  # so no folder has to have it
        asked["variant"] = None
    folder = resolve(
        place,
        revision=revision,
        without=(*elsewhere, *left_out, *(OPTIONAL[name] for name in left_out)),
        weightless=tuple(weights),
        **asked,
    )
    index = read_json(folder / "model_index.json")
    denoiser = fitting.denoiser_name(index, folder)
    for name in (*elsewhere, *weights, *left_out):
        if name not in index:
            raise DiffjaxError(
                f"{folder} is a {index.get('_class_name', 'pipeline')}, which has no "
                f"{name} to replace."
            )

    # nulls stand for what a pipeline does without
    there = {name for name in COMPONENTS if any(index.get(name) or ())}
    there = (there | elsewhere.keys() | weights.keys()) - left_out

    def component_folder(name: str) -> Path:
        return elsewhere.get(name, folder / name)

    if elsewhere or left_out:  # ``resolve`` could not know whether a variant is there
        names = {
            name: [entry.name for entry in component_folder(name).iterdir()]
            for name in STEMS
            if name in there and name not in weights
        }
        require_variant(str(name_or_path), asked.get("variant"), names)
    family = _check_configs(index, folder, denoiser, component_folder, there, guidance)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler_config = read_json(scheduler) | scheduled
    changes = {}
    if loras.files:
        changed = {denoiser: None, **_text_networks(family)}
        changes = {
            name: claimed(loras, component_folder(name), name, network)
            for name, network in changed.items()
        }
        loras.check(name_or_path)
    told_words = learned(words, [*_text_networks(family)], family, name_or_path)
    denoiser_config, denoiser_network = load_network(
        # one device may not hold it; the classifier places it
        component_folder(denoiser),
        denoiser,
        dtype,
        on_host=True,
        variant=variant,
        weights=weights.get(denoiser),
        scheduler=str(scheduler_config.get("_class_name")),
        changes=changes.get(denoiser),
    )
    vae_config, autoencoder = load_network(
        component_folder("vae"), "vae", variant=variant, weights=weights.get("vae")
    )
    another = bool(elsewhere or weights or changes or words)
    common: dict[str, Any] = {
        "name": str(name_or_path),
        "origin": {
            "model": str(name_or_path),
            "revision": revision,
            "dtype": str(dtype),
            "elsewhere": told,
            **({"variant": variant} if variant else {}),
            **({} if shift is None else {"shift": shift}),
            **({"lora": [each.record() for each in loras.files]} if changes else {}),
            **({"textual_inversion": [w.record() for w in words]} if words else {}),
        },
        "denoiser": denoiser_network,
        "autoencoder": autoencoder,
        "scaling_factor": vae_config.scaling_factor,
        "shift_factor": vae_config.shift_factor or 0.0,
        **fitting.process(
            scheduler_config, scheduler, denoiser_config, vae_config, shift
        ),
        "downscale": vae_config.downscale,
        "multiple": vae_config.downscale * getattr(denoiser_config, "patch_size", 1),
        "largest": largest_resolution(denoiser_config, vae_config.downscale),
        "latent_channels": vae_config.latent_channels,
        "learned_variance": denoiser == "transformer"
        and denoiser_config.out_channels == 2 * denoiser_config.in_channels,
        # of other parts nobody knows what they have learned
        "limits": None if another else _limits(folder / LIMITS),
        "temperatures": {} if another else temperatures_in(folder),
        "configs": {denoiser: differing(denoiser_config), "vae": differing(vae_config)},
    }
    if family is None:
        return DiffusionModel(
            kind="class",
            n_classes=denoiser_config.num_embeds_ada_norm,
            class_names=fitting.class_names(index, denoiser_config, folder),
            **common,
        )
    empty_is_zero = bool(index.get("force_zeros_for_empty_prompt", False))
    conditioner = load_conditioner(
        family,
        folder,
        elsewhere,
        variant=variant,
        weights=weights,
        kept=None if cache is None else KeptArrays(Path(cache), "prompts"),
        empty_is_zero=empty_is_zero,
        changes=changes,
        words=told_words,
    )
    common["configs"] |= conditioner.configs
    return DiffusionModel(
        kind="text", conditioner=conditioner, sizes=family.sizes, **common
    )


def _text_networks(family: TextFamily | None) -> dict[str, str | None]:
    """Components that are text encoders, and what runs them."""
    encoders = {} if family is None else family.encoders
    return {name: each.network for name, each in encoders.items()}


def listed(asked: Any) -> list[str | Path]:
    """One name, several or none, as a list.

    Raises:
        DiffjaxError: if it is something else.
    """
    if asked is None:
        return []
    if isinstance(asked, str | Path):
        return [asked]
    if isinstance(asked, Sequence) and all(isinstance(a, str | Path) for a in asked):
        return list(asked)
    raise DiffjaxError(f"{asked!r} is neither the name of a file nor a list of such.")


def _limits(file: Path) -> Limits | None:
    """What a model in the package was trained on; None for any other."""
    if not file.resolve().is_relative_to(ASSETS):
        return None
    found = read_json(file)
    if (words := found.pop("words", None)) is not None:
        found["words"] = frozenset(words)
    return Limits(**found)


def compute_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """A denoiser's dtype; "auto" is bfloat16 on accelerators and float32 on a CPU.

    Raises:
        DiffjaxError: if there is no such dtype, or a denoiser cannot run in it.
    """
    if isinstance(dtype, str) and dtype == "auto":
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        raise unknown("dtype", dtype, DTYPES) from None
    if str(known) not in DTYPES:
        raise unknown("dtype", str(known), DTYPES)
    return known


def _check_configs(
    index: dict[str, Any],
    folder: Path,
    denoiser: str,
    component_folder: Callable[[str], Path],
    there: Collection[str],
    guidance: float | None,
) -> TextFamily | None:
    """The family of a text model, if the pipeline can run; None for a class model.

    Nothing of its weights is read yet.
    """
    family = None
    try:
        fitting.check_index(index)
        configs = {
            name: network_config(component_folder(name), name)
            for name in (denoiser, "vae")
        }
        fitting.check_latents(configs[denoiser], configs["vae"], folder)
        family = family_of(
            configs[denoiser],
            pipeline=str(index.get("_class_name")),
            t5=any(name in there for name in OPTIONAL),
            guidance=guidance,
        )
        if family is not None and len(family.encoders) > 1:
            fitting.check_encoders(there, tuple(family.encoders), folder)
        encoders = (
            []
            if family is None
            else [
                network_config(component_folder(name), name, kind.network)
                for name, kind in family.encoders.items()
            ]
        )
    except DiffjaxError as error:
        pipeline = index.get("_class_name")
        if str(pipeline).removeprefix("Flax") in PIPELINES:
            raise
        raise DiffjaxError(
            f"{folder} is a {pipeline}; diffjax runs {RUNS}. Of its configs, {error}"
        ) from error
    if denoiser == "unet":
        fitting.check_widths(configs["unet"], encoders, folder)
    elif family is not None:
        fitting.check_joint(configs[denoiser], encoders, folder)
    if guidance is not None and not 0 <= guidance < math.inf:
        raise DiffjaxError(f"The guidance is {guidance}; it must be 0 or above.")
    if guidance is not None and "guidance" not in ((family and family.settings) or {}):
        raise DiffjaxError(f"{folder} is told no guidance, as FLUX.1 dev alone is.")
    return family
