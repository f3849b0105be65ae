"""A name → a ``DiffusionModel`` with its weights.

``load_model("sd-2-base")`` or a folder, or a Hugging Face id; parts can come from
elsewhere: ``load_model("sd-1.5", unet="my-fine-tuned-unet")``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from diffjax.checkpoints import fitting, mappings, original_dit
from diffjax.checkpoints.formats import STEMS, read_tensors
from diffjax.checkpoints.parts import COMPONENTS as PARTS
from diffjax.checkpoints.parts import Parts, spelled_out
from diffjax.checkpoints.resolving import require_variant, resolve, resolve_component
from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.checkpoints.unchanged import if_unchanged
from diffjax.choices import DTYPES
from diffjax.errors import DiffjaxError, unknown
from diffjax.files import MAX_JSON_BYTES, parse_json, read_text
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
from diffjax.models.config import differing
from diffjax.models.diffusion import DiffusionModel, Network, OnDemand
from diffjax.models.dit import DiTTransformer2DConfig, DiTTransformer2DModel
from diffjax.models.unet import UNet2DConditionConfig, UNet2DConditionModel


@dataclass(frozen=True, kw_only=True)
class Component:
    """What it takes to load one network of a pipeline."""

    module: Callable[..., nnx.Module]
    config: Any  # a config dataclass with ``from_dict``
    names: mappings.Names
    classes: tuple[str, ...]  # that config.json may name


PIPELINES = ("StableDiffusionPipeline", "DiTPipeline")
LARGE_TEXT_ENCODER = 2**28  # bytes

COMPONENTS: dict[str, Component] = {
    "unet": Component(
        module=UNet2DConditionModel,
        config=UNet2DConditionConfig,
        names=mappings.UNET,
        classes=("UNet2DConditionModel",),
    ),
    "transformer": Component(
        module=DiTTransformer2DModel,
        config=DiTTransformer2DConfig,
        names=mappings.DIT,
        # the public DiT files still carry the class that diffusers split later
        classes=("DiTTransformer2DModel", "Transformer2DModel"),
    ),
    "vae": Component(
        module=AutoencoderKL,
        config=AutoencoderKLConfig,
        names=mappings.AUTOENCODER,
        classes=("AutoencoderKL",),
    ),
    "text_encoder": Component(
        module=CLIPTextModel,
        config=CLIPTextConfig,
        names=mappings.CLIP_TEXT,
        classes=("CLIPTextModel", "CLIPTextModelWithProjection"),
    ),
}


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
            or a Hugging Face id; of a whole Stable Diffusion or DiT pipeline. A path
            that exists comes first.
        dtype: Number type in which the denoiser computes and keeps its weights; "auto"
            is bfloat16 on accelerators and float32 on a CPU. Autoencoder and text
            encoder, which run once an image or prompt, stay in float32.
        **parts: Parts to take from elsewhere, and how to reach the Hub; see ``Parts``.

    Raises:
        DiffjaxError: If the model cannot be found, read, or run; it says what to do.
    """
    asked: dict[str, Any] = {**parts}
    named = {name: asked.pop(name, None) for name in PARTS}
    revision = asked.pop("revision", None)
    variant = asked.get("variant")
    elsewhere = {
        name: resolve_component(place, name, **asked)
        for name, place in named.items()
        if place is not None
    }
    dtype = compute_dtype(dtype)
    weights = {name: place for name, place in elsewhere.items() if place.is_file()}
    elsewhere = {n: place for n, place in elsewhere.items() if n not in weights}
    folder = resolve(
        name_or_path,
        revision=revision,
        without=tuple(elsewhere),
        weightless=tuple(weights),
        **asked,
    )
    index = read_json(folder / "model_index.json")
    denoiser = fitting.denoiser_name(index, folder)
    for name in (*elsewhere, *weights):
        if name not in index:
            raise DiffjaxError(
                f"{folder} is a {index.get('_class_name', 'pipeline')}, which has no "
                f"{name} to replace."
            )

    def component_folder(name: str) -> Path:
        return elsewhere.get(name, folder / name)

    if elsewhere:  # ``resolve`` could not know whether a variant is there
        names = {
            name: [entry.name for entry in component_folder(name).iterdir()]
            for name in STEMS
            if name in index and name not in weights
        }
        require_variant(str(name_or_path), variant, names)
    _check_configs(index, folder, denoiser, component_folder)
    denoiser_config, denoiser_network = load_network(
        # one device may not hold it; the classifier places it
        component_folder(denoiser),
        denoiser,
        dtype,
        on_host=True,
        variant=variant,
        weights=weights.get(denoiser),
    )
    vae_config, autoencoder = load_network(
        component_folder("vae"), "vae", variant=variant, weights=weights.get("vae")
    )
    scheduler = folder / "scheduler" / "scheduler_config.json"
    common: dict[str, Any] = {
        "name": str(name_or_path),
        "origin": {
            "model": str(name_or_path),
            "revision": revision,
            "dtype": str(dtype),
            "elsewhere": {c: str(place) for c, place in named.items() if place},
            **({"variant": variant} if variant else {}),
        },
        "denoiser": denoiser_network,
        "autoencoder": autoencoder,
        "scaling_factor": vae_config.scaling_factor,
        **fitting.process(read_json(scheduler), scheduler, denoiser_config, vae_config),
        "downscale": vae_config.downscale,
        "multiple": vae_config.downscale,
        "latent_channels": vae_config.latent_channels,
        "configs": {denoiser: differing(denoiser_config), "vae": differing(vae_config)},
    }
    if denoiser == "transformer":
        common["multiple"] *= denoiser_config.patch_size
        return DiffusionModel(
            kind="class",
            n_classes=denoiser_config.num_embeds_ada_norm,
            class_names=fitting.class_names(index, denoiser_config, folder),
            learned_variance=denoiser_config.out_channels
            == 2 * denoiser_config.in_channels,
            **common,
        )
    text_config, text_network = _load_text_encoder(
        component_folder("text_encoder"), variant, weights.get("text_encoder")
    )
    common["configs"]["text_encoder"] = differing(text_config)
    tokenize = Tokenizer(
        component_folder("tokenizer"),
        text_config.max_position_embeddings,
        text_config.vocab_size,
    )
    if "text_encoder" in elsewhere and "tokenizer" not in elsewhere:
        own = folder / "text_encoder"  # it is not fetched where it is replaced
        rows = network_config(own, own.name).vocab_size if own.is_dir() else 0
        known = max(rows, tokenize.size)
        fitting.check_tokens(text_config.vocab_size, known, folder)
    return DiffusionModel(
        kind="text",
        text_network=text_network,
        tokenize=tokenize,
        **common,
    )


def _load_text_encoder(
    folder: Path, variant: str | None, weights: Path | None
) -> tuple[Any, Network | OnDemand]:
    """The text encoder and its config.

    On a CPU a large one is on demand: its memory is better used while tiles are
    evaluated, and to read it again takes less time than one of them.
    """
    name = "text_encoder"

    def read() -> Network:
        return load_network(folder, name, variant=variant, weights=weights)[1]

    places = [folder, *([] if weights is None else [weights])]
    network = OnDemand(if_unchanged(read, places))
    large = network().bytes > LARGE_TEXT_ENCODER
    on_demand = jax.default_backend() == "cpu" and large
    return network_config(folder, name), network if on_demand else network()


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


def load_network(
    folder: Path,
    name: str,
    dtype: DTypeLike = jnp.float32,
    *,
    on_host: bool = False,
    variant: str | None = None,
    weights: Path | None = None,
) -> tuple[Any, Network]:
    """One network and its config from its own folder.

    Args:
        folder: with config.json and weights.
        name: a key of ``COMPONENTS``.
        dtype: of computation and weights; norms and a denoiser's last layer stay in
            float32.
        on_host: leave the weights there, as NumPy's arrays.
        variant: of the weights, if they have it.
        weights: a file to read them from instead.

    Raises:
        DiffjaxError: if config or weights are missing, damaged or do not fit.
    """
    component, path = COMPONENTS[name], folder / "config.json"
    config, names = network_config(folder, name), component.names
    tensors = read_tensors(weights or folder, stem=STEMS[name], variant=variant)
    tensors = mappings.without_wrappers(tensors)
    source = str(weights or folder)
    if name == "transformer" and original_dit.is_original(tensors):
        tensors = original_dit.split_attention(tensors, config, source)
        config, names = original_dit.original_config(config), mappings.ORIGINAL_DIT
    try:
        graphdef, abstract = empty_network(name, config, dtype)
    except DiffjaxError as error:
        raise DiffjaxError(f"{path}: {error}") from error
    state = mappings.fill(abstract, tensors, names, source)
    return config, Network(graphdef, state if on_host else jax.device_put(state))


def network_config(folder: Path, name: str) -> Any:
    """The config of one network, from config.json in its own folder.

    Raises:
        DiffjaxError: if it is missing, damaged, or asks for what is not implemented.
    """
    component = COMPONENTS[name]
    path = folder / "config.json"
    raw = read_json(path)
    named = _class_names_in(raw, path)
    # diffusers and transformers once had Flax classes, whose files are those of torch's
    # classes but for the layout, and the prefix here
    if named and not {n.removeprefix("Flax") for n in named} & {*component.classes}:
        raise DiffjaxError(
            f"{path} describes a {', '.join(named)}; as {name} diffjax runs "
            f"{' or '.join(component.classes)}"
        )
    return component.config.from_dict(raw, str(path))


def _class_names_in(config: Mapping[str, Any], path: Path) -> list[str]:
    """What a config.json says it describes: in diffusers' key, or transformers'."""
    one, many = config.get("_class_name"), config.get("architectures")
    named = [one, *(many if isinstance(many, list) else [many])]
    named = [name for name in named if name is not None]
    if wrong := [name for name in named if not isinstance(name, str)]:
        raise DiffjaxError(
            f"{path}: _class_name and architectures name classes, which {wrong[0]!r} "
            "is not; download it again."
        )
    return named


def empty_network(
    name: str,
    config: Any,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike | None = None,
) -> tuple[Any, nnx.State[Any, Any]]:
    """A network's structure, and its parameters as shapes without memory.

    Args:
        name: a key of ``COMPONENTS``.
        config: of that kind.
        dtype: of computation; norms stay in float32.
        param_dtype: of weights, if it is another.

    Raises:
        DiffjaxError: if the config's numbers do not fit one another.
    """
    module = COMPONENTS[name].module(
        config,
        rngs=None,
        dtype=dtype,
        param_dtype=dtype if param_dtype is None else param_dtype,
    )
    graphdef, state = nnx.split(module)
    return graphdef, state


def read_json(path: Path) -> dict[str, Any]:
    """The object in a checkpoint's JSON file; numbers in it may be infinite.

    Raises:
        DiffjaxError: if it is missing or damaged.
    """
    text = read_text(path, path.name, MAX_JSON_BYTES)
    content = parse_json(text, str(path), "Download it again.", finite=False)
    if not isinstance(content, dict):
        raise DiffjaxError(f"{path} is not a JSON object. Download it again.")
    return content


def _check_configs(
    index: dict[str, Any],
    folder: Path,
    denoiser: str,
    component_folder: Callable[[str], Path],
) -> None:
    """Refuse a pipeline that cannot run before any of its weights are read."""
    names = [denoiser, "vae", *(["text_encoder"] if denoiser == "unet" else [])]
    try:
        configs = {name: network_config(component_folder(name), name) for name in names}
        fitting.check_latents(configs[denoiser], configs["vae"], folder)
    except DiffjaxError as error:
        pipeline = index.get("_class_name")
        if str(pipeline).removeprefix("Flax") in PIPELINES:
            raise
        raise DiffjaxError(
            f"{folder} is a {pipeline}; diffjax runs Stable Diffusion 1.x and 2.x "
            f"and DiT. Of its configs, {error}"
        ) from error
    if denoiser == "unet":
        fitting.check_widths(configs["unet"], configs["text_encoder"], folder)
