"""One network of a pipeline, from its own folder: config.json and weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from diffjax.checkpoints import mappings, naming, original_dit, original_sd
from diffjax.checkpoints.components import COMPONENTS, SPLIT, STEMS
from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.lora import Changes, Loras
from diffjax.errors import DiffjaxError
from diffjax.files import MAX_JSON_BYTES, parse_json, read_text
from diffjax.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from diffjax.models.clip import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelPooled,
    CLIPTextModelWithProjection,
    CLIPTextPooledConfig,
    CLIPTextWithProjectionConfig,
)
from diffjax.models.dit import DiTTransformer2DConfig, DiTTransformer2DModel
from diffjax.models.flux import FluxTransformer2DConfig, FluxTransformer2DModel
from diffjax.models.mmdit import SD3Transformer2DConfig, SD3Transformer2DModel
from diffjax.models.network import Network
from diffjax.models.pixart import PixArtTransformer2DConfig, PixArtTransformer2DModel
from diffjax.models.resnet import (
    ResNetForImageClassification,
    ResNetForImageClassificationConfig,
)
from diffjax.models.t5 import (
    MaskedT5Config,
    MaskedT5EncoderModel,
    T5Config,
    T5EncoderModel,
)
from diffjax.models.unet import UNet2DConditionModel
from diffjax.models.unet_config import UNet2DConditionConfig
from diffjax.models.vit import (
    ViTForImageClassification,
    ViTForImageClassificationConfig,
)


@dataclass(frozen=True)
class Kind:
    """What it takes to load networks of one class."""

    module: Callable[..., nnx.Module]
    config: Any  # a config dataclass with ``from_dict``
    names: naming.Names


NETWORKS: dict[str, Kind] = {
    kind.module.__name__: kind
    for kind in (
        Kind(UNet2DConditionModel, UNet2DConditionConfig, naming.UNET),
        Kind(DiTTransformer2DModel, DiTTransformer2DConfig, naming.DIT),
        Kind(SD3Transformer2DModel, SD3Transformer2DConfig, naming.SD3),
        Kind(FluxTransformer2DModel, FluxTransformer2DConfig, naming.FLUX),
        Kind(PixArtTransformer2DModel, PixArtTransformer2DConfig, naming.PIXART),
        Kind(AutoencoderKL, AutoencoderKLConfig, naming.AUTOENCODER),
        Kind(CLIPTextModel, CLIPTextConfig, naming.CLIP_TEXT),
        Kind(CLIPTextModelPooled, CLIPTextPooledConfig, naming.CLIP_TEXT),
        Kind(
            CLIPTextModelWithProjection,
            CLIPTextWithProjectionConfig,
            naming.CLIP_TEXT_WITH_PROJECTION,
        ),
        Kind(T5EncoderModel, T5Config, naming.T5_ENCODER),
        Kind(MaskedT5EncoderModel, MaskedT5Config, naming.T5_ENCODER),
        Kind(
            ViTForImageClassification,
            ViTForImageClassificationConfig,
            naming.VIT_CLASSIFIER,
        ),
        Kind(
            ResNetForImageClassification,
            ResNetForImageClassificationConfig,
            naming.RESNET_CLASSIFIER,
        ),
    )
}


def kind_of(component: str, cls: str | None = None) -> Kind:
    """The networks that a component holds, by the class that its config.json names."""
    networks = COMPONENTS[component].networks
    return NETWORKS[networks[cls or next(iter(networks))]]


def load_network(
    folder: Path,
    name: str,
    dtype: DTypeLike = jnp.float32,
    *,
    on_host: bool = False,
    variant: str | None = None,
    weights: Path | None = None,
    network: str | None = None,
    scheduler: str = "",
    changes: Changes | None = None,
) -> tuple[Any, Network]:
    """One network and its config from its own folder.

    Args:
        folder: with config.json and weights.
        name: of the component, one that has weights.
        dtype: of computation and weights; norms and a denoiser's last layer stay in
            float32.
        on_host: leave the weights there, as NumPy's arrays.
        variant: of the weights, if they have it.
        weights: a file to read them from instead.
        network: as for ``network_config``.
        scheduler: the class of a denoiser's, by which a file of weights is read that
            DiT's, SiT's or REPA's program saved.
        changes: what LoRAs add to the weights.

    Raises:
        DiffjaxError: if config or weights are missing, damaged or do not fit.
    """
    config = network_config(folder, name, network)
    names = kind_of_config(config).names
    tensors = read_tensors(weights or folder, stem=STEMS[name], variant=variant)
    tensors = mappings.without_wrappers(tensors)
    source = str(weights or folder)
    if name == "transformer" and original_dit.is_original(tensors):
        tensors = original_dit.of_program(tensors, config, scheduler, source)
        tensors = original_dit.split_attention(tensors, config, source)
        config, names = original_dit.original_config(config), naming.ORIGINAL_DIT
    elif original_sd.is_original(name, tensors):
        tensors, names = original_sd.part(name, tensors, config, source, variant)
    empty = network_shapes(folder, config, dtype)
    added = None if changes is None else changes.of
    state = mappings.fill(empty.state, tensors, names, source, added)
    return config, Network(empty.graphdef, state if on_host else jax.device_put(state))


def claimed(
    loras: Loras, folder: Path, name: str, network: str | None = None
) -> Changes:
    """What LoRAs change in a network, by its config alone; as for ``load_network``."""
    config = network_config(folder, name, network)
    state = network_shapes(folder, config).state
    return loras.claim(name, config, kind_of_config(config).names, state)


def network_shapes(
    folder: Path, config: Any, dtype: DTypeLike = jnp.float32
) -> Network:
    """What ``load_network`` will read, without memory: shapes in place of weights.

    Raises:
        DiffjaxError: if the config's numbers do not fit one another.
    """
    try:
        return Network(*empty_network(config, dtype))
    except DiffjaxError as error:
        raise DiffjaxError(f"{folder / 'config.json'}: {error}") from error


def network_config(folder: Path, name: str, network: str | None = None) -> Any:
    """The config of one network, from config.json in its own folder.

    Args:
        folder: with config.json.
        name: of the component, one that has weights.
        network: a key of ``NETWORKS`` that runs it, where a family asks for another
            than the usual one of the class.

    Raises:
        DiffjaxError: if it is missing, damaged, or asks for what is not implemented.
    """
    classes = COMPONENTS[name].networks
    if network is not None:  # of that kind alone
        kind = NETWORKS[network].config
        classes = {
            cls: network
            for cls, usual in classes.items()
            if issubclass(kind, base := NETWORKS[usual].config)
            or issubclass(base, kind)
        }
    path = folder / "config.json"
    raw = read_json(path)
    named = classes_named_in(raw, path)
    # diffusers and transformers once had Flax classes, whose files are those of torch's
    # classes but for the layout, and the prefix here
    known = [cls for n in named if (cls := n.removeprefix("Flax")) in classes]
    if named and not known:
        raise DiffjaxError(
            f"{path} describes a {', '.join(named)}; as {name} diffjax runs "
            f"{' or '.join(classes)}"
        )
    cls = known[0] if known else next(iter(classes))
    cls = SPLIT.get(cls, {}).get(str(raw.get("norm_type")), cls)
    return NETWORKS[classes[cls]].config.from_dict(raw, str(path))


def classes_named_in(config: Mapping[str, Any], path: Path) -> list[str]:
    """What a config.json says it describes: in diffusers' key, or transformers'.

    Raises:
        DiffjaxError: if what stands there is no name.
    """
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
    config: Any,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Any, nnx.State[Any, Any]]:
    """A network's structure, and its parameters as shapes without memory.

    Args:
        config: of one of ``NETWORKS``.
        dtype: of computation and weights; norms stay in float32.

    Raises:
        DiffjaxError: if the config's numbers do not fit one another.
    """
    make = kind_of_config(config).module
    module = make(config, rngs=None, dtype=dtype, param_dtype=dtype)
    graphdef, state = nnx.split(module)
    return graphdef, state


def kind_of_config(config: Any) -> Kind:
    """The networks that have a config of this type."""
    [kind] = [each for each in NETWORKS.values() if each.config is type(config)]
    return kind


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
