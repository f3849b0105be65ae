"""The names that programs which train a LoRA give to the modules that they change.

    unet.down_blocks.0.….to_q.lora_A.weight         diffusers and peft; so transformer.,
                                                    text_encoder., text_encoder_2., …
    down_blocks.0.….processor.to_q_lora.up.weight   diffusers before 0.22
    base_model.model.….lora_B.weight                peft alone
    lora_unet_down_blocks_0_….lora_down.weight      kohya; so lora_te_, lora_te1_, …
    lora_unet_input_blocks_1_1_….lora_up.weight     kohya, as the original programs name
    diffusion_model.double_blocks.0.….lora_A.weight those that ComfyUI reads

A name is looked up in a table of all that a network has; in kohya's the dots are
underscores there too, so that none has to be guessed. Some programs have one linear map
where networks here have several: its rows are theirs, in the table's order.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from diffjax.checkpoints.mappings import ParameterPath, torch_names
from diffjax.checkpoints.naming import Names
from diffjax.checkpoints.original_sd import unet_names
from diffjax.errors import DiffjaxError
from diffjax.models.clip import CLIPTextConfig
from diffjax.models.flux import FluxTransformer2DConfig
from diffjax.models.mmdit import SD3Transformer2DConfig
from diffjax.models.unet_config import UNet2DConditionConfig

Table = dict[str, tuple[ParameterPath, ...]]

DENOISER = "denoiser"  # whichever it is
_COMPONENTS = {
    "unet": DENOISER,
    "transformer": DENOISER,
    **{name: name for name in ("text_encoder", "text_encoder_2", "text_encoder_3")},
}
_KOHYA = {
    "unet": DENOISER,
    "transformer": DENOISER,
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
    "te3": "text_encoder_3",
}
_ROLES = re.compile(
    r"(?P<module>.+?)"
    r"(?:\.lora_(?P<new>A|B|down|up)(?:\.(?!weight)[\w-]+)?\.weight"
    r"|[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight"
    r"|\.(?P<alpha>alpha))"
)
_DOWN = ("A", "down")
# what is no LoRA of two matrices, by a name in it
_REFUSED = {
    r"\.hada_w\d_": "a LoHa",
    r"\.lokr_(w\d|t\d)": "a LoKr",
    r"\.(dora_scale|lora_magnitude_vector)": "a DoRA",
    r"\.lora_mid\.": "a LoCon by Tucker's decomposition",
    r"\.(oft_|boft_|oft_blocks)": "an OFT",
    r"\.(diff|diff_b|set_weight)$": "a table of whole differences",
    r"\.lora_(B|up)\.(\w+\.)?bias$": "a LoRA with biases",
    r"\.lora_embedding_": "a LoRA of an embedding",
    r"\.(a1|b1)\.weight": "a GLoRA",
}
# the programs of the papers → diffusers; * is a block's number
_FLUX = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "double_blocks.*.img_mod.lin": "transformer_blocks.*.norm1.linear",
    "double_blocks.*.txt_mod.lin": "transformer_blocks.*.norm1_context.linear",
    "double_blocks.*.img_attn.qkv": "transformer_blocks.*.attn: to_q to_k to_v",
    "double_blocks.*.txt_attn.qkv": (
        "transformer_blocks.*.attn: add_q_proj add_k_proj add_v_proj"
    ),
    "double_blocks.*.img_attn.proj": "transformer_blocks.*.attn.to_out.0",
    "double_blocks.*.txt_attn.proj": "transformer_blocks.*.attn.to_add_out",
    "double_blocks.*.img_mlp.0": "transformer_blocks.*.ff.net.0.proj",
    "double_blocks.*.img_mlp.2": "transformer_blocks.*.ff.net.2",
    "double_blocks.*.txt_mlp.0": "transformer_blocks.*.ff_context.net.0.proj",
    "double_blocks.*.txt_mlp.2": "transformer_blocks.*.ff_context.net.2",
    "single_blocks.*.modulation.lin": "single_transformer_blocks.*.norm.linear",
    "single_blocks.*.linear1": (
        "single_transformer_blocks.*: attn.to_q attn.to_k attn.to_v proj_mlp"
    ),
    "single_blocks.*.linear2": "single_transformer_blocks.*.proj_out",
    "final_layer.linear": "proj_out",
}
_SD3 = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "joint_blocks.*.x_block.adaLN_modulation.1": "transformer_blocks.*.norm1.linear",
    "joint_blocks.*.x_block.attn.qkv": "transformer_blocks.*.attn: to_q to_k to_v",
    "joint_blocks.*.x_block.attn2.qkv": "transformer_blocks.*.attn2: to_q to_k to_v",
    "joint_blocks.*.context_block.attn.qkv": (
        "transformer_blocks.*.attn: add_q_proj add_k_proj add_v_proj"
    ),
    "joint_blocks.*.x_block.attn.proj": "transformer_blocks.*.attn.to_out.0",
    "joint_blocks.*.x_block.attn2.proj": "transformer_blocks.*.attn2.to_out.0",
    "joint_blocks.*.context_block.attn.proj": "transformer_blocks.*.attn.to_add_out",
    "joint_blocks.*.x_block.mlp.fc1": "transformer_blocks.*.ff.net.0.proj",
    "joint_blocks.*.x_block.mlp.fc2": "transformer_blocks.*.ff.net.2",
    "joint_blocks.*.context_block.mlp.fc1": (
        "transformer_blocks.*.ff_context.net.0.proj"
    ),
    "joint_blocks.*.context_block.mlp.fc2": "transformer_blocks.*.ff_context.net.2",
    "final_layer.linear": "proj_out",
}
_SD3_TEXT = ("joint_blocks.{}.context_block.adaLN_modulation.1", "norm1_context.linear")


@dataclass(frozen=True)
class Place:
    """Where a tensor of a LoRA belongs.

    Attributes:
        component: a text encoder's, or ``DENOISER``.
        module: its name in the file, without what stands before all of them.
        role: "down" (A), "up" (B) or "alpha".
    """

    component: str
    module: str
    role: str


def place_of(key: str) -> Place | None:
    """Where a tensor belongs, by its name; None if it is no name of a LoRA."""
    match = _ROLES.fullmatch(key)
    if match is None:
        return None
    half = match["new"] or match["old"]
    role = "alpha" if match["alpha"] else "down" if half in _DOWN else "up"
    module = match["module"].removeprefix("base_model.model.")
    if kohya := re.fullmatch(r"lora_([a-z]+\d?)_(.+)", module):
        which, name = kohya.groups()
        return Place(_KOHYA[which], name, role) if which in _KOHYA else None
    first, _, rest = module.partition(".")
    if first == "model" and rest.startswith("diffusion_model."):
        first, _, rest = rest.partition(".")
    if first == "diffusion_model":
        return Place(DENOISER, rest, role)
    if first in _COMPONENTS:
        return Place(_COMPONENTS[first], rest, role)
    return Place(DENOISER, module, role)


def check_kind(path: object, keys: list[str]) -> None:
    """Raise a DiffjaxError for what is of another kind than two matrices."""
    for pattern, what in _REFUSED.items():
        if any(re.search(pattern, key) for key in keys):
            raise DiffjaxError(
                f"{path} is {what}, which is not supported: only a LoRA of two "
                "matrices for each weight. Merge it into the model with the program "
                "that made it, and name the result."
            )


def modules(config: Any, names: Names, state: nnx.State[Any, Any]) -> Table:
    """Every name of a network's linear maps and convolutions, and which they are.

    Args:
        config: of the network.
        names: of its weights, as diffusers or transformers have them.
        state: its parameters, as shapes.
    """
    flat = dict(nnx.to_flat_state(state))
    kernels = [path for path in flat if path[-1] == "kernel"]
    blocks = len({path[1] for path in flat if path[0] == "transformer_blocks"})
    table: Table = {}
    for path in kernels:
        for name in torch_names(path, names, blocks):
            table[name.removesuffix(".weight")] = (path,)
    table |= dict(_further(config, table, kernels))
    # diffusers once named the first of to_out's two layers without a number
    table |= {k.removesuffix(".0"): v for k, v in table.items() if "to_out.0" in k}
    return table | {name.replace(".", "_"): paths for name, paths in table.items()}


def cleaned(module: str) -> str:
    """A module's name without what older versions of diffusers put into it."""
    return module.replace(".processor.", ".")


def _further(
    config: Any, table: Mapping[str, tuple[ParameterPath, ...]], kernels: list[Any]
) -> Iterator[tuple[str, tuple[ParameterPath, ...]]]:
    """Names that other programs have for a network's modules."""
    if isinstance(config, UNet2DConditionConfig):
        original = unet_names(config)
        for path in kernels:
            [name] = torch_names(path, original, 0)
            yield name.removesuffix(".weight"), (path,)
    elif isinstance(config, CLIPTextConfig):
        for name, paths in table.items():
            yield name.removeprefix("text_model."), paths
            old = re.sub(r"self_attn\.(q|k|v|out)_proj", r"self_attn.to_\1", name)
            yield old, paths
    elif isinstance(config, FluxTransformer2DConfig):
        yield from _expanded(_FLUX, table)
    elif isinstance(config, SD3Transformer2DConfig):
        last = config.num_layers - 1
        # of the last block it has scale and shift the other way round
        theirs, ours = _SD3_TEXT
        adaln = {
            theirs.format(i): f"transformer_blocks.{i}.{ours}" for i in range(last)
        }
        yield from _expanded(_SD3 | adaln, table)


def _expanded(
    names: Mapping[str, str], table: Mapping[str, tuple[ParameterPath, ...]]
) -> Iterator[tuple[str, tuple[ParameterPath, ...]]]:
    """The names of all blocks that there are."""
    numbers = {int(n) for name in table for n in re.findall(r"blocks\.(\d+)\.", name)}
    for theirs, ours in names.items():
        for i in sorted(numbers) if "*" in theirs else [0]:
            place, _, several = ours.replace("*", str(i)).partition(": ")
            whole = [f"{place}.{each}" for each in several.split()] or [place]
            if all(name in table for name in whole):
                paths = tuple(path for name in whole for path in table[name])
                yield theirs.replace("*", str(i)), paths
