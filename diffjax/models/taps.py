"""What the layers inside of a denoiser put out, in one forward pass.

    x_l = the output of layer l in denoiser(z_t, t, condition)

Layers go by diffusers' names: of a U-Net ``mid_block``, ``up_blocks.1`` or
``down_blocks.0.resnets.1``, of a transformer ``transformer_blocks.13``. A tap stands in
a layer's place for one trace, as a hook of torch's would, so that networks know nothing
of it and what is compiled elsewhere is what it was. Of a traced forward pass, nobody
uses what comes after the last layer that is asked for, and the compiler leaves it out.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int

from diffjax.errors import DiffjaxError, nearest

BLOCKS = (  # of all denoisers, in the order in which they run
    "down_blocks",
    "mid_block",
    "up_blocks",
    "transformer_blocks",
    "single_transformer_blocks",
)
WITHIN = ("resnets", "attentions")  # of a U-Net's blocks, which take turns


class Tap(nnx.Module):
    """Stands in a layer's place, and tells what it puts out."""

    def __init__(self, layer: nnx.Module, tell: Callable[[Any], None]) -> None:
        self.layer = layer
        self.tell = tell

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """What the layer puts out."""
        layer: Any = self.layer
        output = layer(*inputs, **options)
        self.tell(output)
        return output


def block_names(denoiser: nnx.Module) -> tuple[str, ...]:
    """The names of a denoiser's blocks in the order in which they run; perhaps none."""
    names: list[str] = []
    for group in BLOCKS:
        blocks = getattr(denoiser, group, None)
        if isinstance(blocks, nnx.List):
            names += [f"{group}.{i}" for i in range(len(blocks))]
        elif blocks is not None:
            names.append(group)
    return tuple(names)


def layer_names(denoiser: nnx.Module) -> tuple[str, ...]:
    """All layers that can be asked for: blocks, each after what is inside of it."""
    names: list[str] = []
    for block in block_names(denoiser):
        inside = _at(denoiser, block)
        lists = {name: getattr(inside, name, ()) for name in WITHIN}
        for i in range(max(map(len, lists.values()))):
            names += [f"{block}.{n}.{i}" for n, each in lists.items() if i < len(each)]
        names.append(block)
    return tuple(names)


def middle_layer(denoiser: nnx.Module, name: str) -> str:
    """The block in the middle: of a U-Net ``mid_block``.

    Args:
        denoiser: the module.
        name: of the model, for messages.

    Raises:
        DiffjaxError: if it has no blocks that have names.
    """
    blocks = block_names(denoiser)
    if not blocks:
        raise DiffjaxError(
            f"{name} has no layers that go by diffusers' names: features are of U-Nets "
            "and diffusion transformers."
        )
    return blocks[(len(blocks) - 1) // 2]


def check_layers(denoiser: nnx.Module, layers: Sequence[str], name: str) -> None:
    """Raise a DiffjaxError unless a denoiser has all of these layers, each named once.

    Args:
        denoiser: the module.
        layers: names.
        name: of the model, for messages.
    """
    middle_layer(denoiser, name)
    known = layer_names(denoiser)
    for layer in layers:
        if layer not in known:
            blocks = block_names(denoiser)
            inside = f", and inside of them {', '.join(WITHIN)}" * (known != blocks)
            raise DiffjaxError(
                f"{name} has no layer {layer!r}. Its blocks are {', '.join(blocks)}"
                f"{inside}.{nearest(layer, known)}"
            )
    if len(set(layers)) < len(layers):
        raise DiffjaxError(f"The layers {', '.join(layers)} name one twice.")


def outputs(
    denoiser: Any,
    layers: Sequence[str],
    latent: Float[Array, "h w c"],
    time: Int[Array, ""] | Float[Array, ""],
    condition: Any,
) -> list[Float[Array, "h2 w2 d"]]:
    """x_l of each layer as a map over the image.

    Args:
        denoiser: a module of ``Network.module()``, which is used up.
        layers: names as of ``layer_names``.
        latent: z_t of one image.
        time: what the schedule has the network told.
        condition: of one prompt or class.

    Returns:
        Maps of a U-Net as they are; of a transformer its image tokens on their grid. In
        the number type of the network.
    """
    told: dict[str, Any] = {}
    for layer in sorted(layers, key=lambda name: -name.count(".")):  # inner ones first
        parent, _, last = layer.rpartition(".")
        inside = _at(denoiser, parent)
        tap = Tap(_at(inside, last), _teller(told, layer))
        if last.isdecimal():
            inside[int(last)] = tap
        else:
            setattr(inside, last, tap)
    denoiser(latent, time, condition)
    patch = getattr(denoiser.config, "patch_size", 1)
    grid = (latent.shape[0] // patch, latent.shape[1] // patch)
    return [_map(told[layer], grid) for layer in layers]


def _teller(told: dict[str, Any], layer: str) -> Callable[[Any], None]:
    return lambda output: told.update({layer: output})


def _at(module: Any, path: str) -> Any:
    """What stands at a dotted path, the module itself at ""."""
    for name in filter(None, path.split(".")):
        module = module[int(name)] if name.isdecimal() else getattr(module, name)
    return module


def _map(output: Any, grid: tuple[int, int]) -> Array:
    if isinstance(
        output, list
    ):  # a way down: all of its skips, of which the last goes on
        output = output[-1]
    if isinstance(output, tuple):  # tokens of the image, tokens of the text
        output = output[0]
    x: Array = output
    if x.ndim == 2:  # tokens, those of the image before those of a text
        x = x[: grid[0] * grid[1]].reshape(*grid, -1)
    return x
