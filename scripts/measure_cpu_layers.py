"""Layers of Stable Diffusion and DiT on this CPU: XLA's own way, ours, and torch's.

    python scripts/measure_cpu_layers.py --threads 2
    python scripts/measure_cpu_layers.py --batch 1 4 --layers "conv 8²" "conv 16²"

Milliseconds for one of a batch, in float32, medians of repeats in which all take turns;
nothing else may run. Both of our ways are timed: XLA's own, and attention in blocks of
queries (`diffjax.models.blocked`) or a convolution as one product
(`diffjax.models.convolution`). The one that networks take on CPUs has a star. Torch
attends by scaled_dot_product_attention, and convolves with channels last or first,
whichever is faster.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

Run = Callable[[], Any]


@dataclass(frozen=True)
class Attention:
    """So many heads of a width, from so many tokens to themselves or to others."""

    tokens: int
    heads: int
    head: int
    others: int | None = None


@dataclass(frozen=True)
class Convolution:
    """3×3, of a square map of so many pixels along an edge."""

    edge: int
    inputs: int
    outputs: int


LAYERS: dict[str, Attention | Convolution] = {
    "attention 4096², 5 × 64 (SD 2)": Attention(4096, 5, 64),
    "attention 4096², 8 × 40 (SD 1)": Attention(4096, 8, 40),
    "attention 4096², 1 × 512 (autoencoder)": Attention(4096, 1, 512),
    "attention 1024², 10 × 64 (SD 2)": Attention(1024, 10, 64),
    "attention 1024², 16 × 72 (DiT, 512 pixels)": Attention(1024, 16, 72),
    "attention 256², 20 × 64 (SD 2)": Attention(256, 20, 64),
    "attention 256², 16 × 72 (DiT)": Attention(256, 16, 72),
    "attention 64², 20 × 64 (SD 2)": Attention(64, 20, 64),
    "attention 4096 × 77, 5 × 64 (SD 2, text)": Attention(4096, 5, 64, 77),
    "attention 1024 × 77, 10 × 64 (SD 2, text)": Attention(1024, 10, 64, 77),
    "attention 256 × 77, 20 × 64 (SD 2, text)": Attention(256, 20, 64, 77),
    "conv 64², 320 → 320": Convolution(64, 320, 320),
    "conv 32², 640 → 640": Convolution(32, 640, 640),
    "conv 32², 1280 → 1280": Convolution(32, 1280, 1280),
    "conv 16², 1280 → 1280": Convolution(16, 1280, 1280),
    "conv 8², 1280 → 1280": Convolution(8, 1280, 1280),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--layers", nargs="+", metavar="WORDS", help="those with such words in them")
    add("--batch", type=int, nargs="+", default=[1, 2])
    add("--repeats", type=int, default=7)
    add("--threads", type=int, default=os.cpu_count(), help="of torch")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    import torch

    torch.set_num_threads(args.threads)
    print("| layer | batch | XLA | blocks or product | torch |\n|---|---|---|---|---|")
    for name, layer in LAYERS.items():
        if args.layers and not any(words in name for words in args.layers):
            continue
        for batch in args.batch:
            runs, ours = contestants(layer, batch)
            with torch.inference_mode():
                ms = {
                    k: 1e3 / batch * s for k, s in seconds(runs, args.repeats).items()
                }
            theirs = min(value for key, value in ms.items() if "torch" in key)
            cells = [f"{ms[key]:.2f}{'*' * (key == ours)}" for key in ("xla", "other")]
            print(
                f"| {name} | {batch} | {' | '.join(cells)} | {theirs:.2f} |", flush=True
            )
    print(f"load of the machine: {os.getloadavg()[0]:.1f}", file=sys.stderr)


def contestants(
    layer: Attention | Convolution, batch: int
) -> tuple[dict[str, Run], str]:
    """What runs the layer, ready to be called, and which of them the networks take."""
    draw = np.random.default_rng(0).standard_normal
    if isinstance(layer, Attention):
        lengths = (layer.tokens, *[layer.others or layer.tokens] * 2)
        shapes = [(batch, length, layer.heads, layer.head) for length in lengths]
        return attention(*(draw(shape, np.float32) for shape in shapes))
    maps = draw((batch, layer.edge, layer.edge, layer.inputs), np.float32)
    kernel = draw((3, 3, layer.inputs, layer.outputs), np.float32)
    return convolution(maps, kernel)


def attention(*arrays: np.ndarray) -> tuple[dict[str, Run], str]:
    """q [b, l, n, h], k and v [b, m, n, h]."""
    import jax
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from diffjax.models.attention import choose
    from diffjax.models.blocked import blocked

    ours = [jax.device_put(x) for x in arrays]
    theirs = [torch.from_numpy(x) for x in arrays]
    xla = jax.jit(jax.vmap(jax.nn.dot_product_attention))
    other = jax.jit(jax.vmap(blocked))
    (_, tokens, _, head), others = arrays[0].shape, arrays[1].shape[1]

    def peer() -> Any:
        """As diffusers calls it: heads are turned before and after."""
        q, k, v = (x.transpose(1, 2) for x in theirs)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    runs: dict[str, Run] = {
        "xla": lambda: jax.block_until_ready(xla(*ours)),
        "other": lambda: jax.block_until_ready(other(*ours)),
        "torch": peer,
    }
    chosen = choose("cpu", "float32", head, tokens, others)
    return runs, "xla" if chosen == "xla" else "other"


def convolution(maps: np.ndarray, kernel: np.ndarray) -> tuple[dict[str, Run], str]:
    """Of maps [b, h, w, i] with a kernel [3, 3, i, o]."""
    import jax
    import torch
    from torch.nn.functional import conv2d

    from diffjax.models.convolution import as_product, takes_product

    padding = ((1, 1), (1, 1))
    x, w = jax.device_put(maps), jax.device_put(kernel)

    def mapped(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """As networks have it: one map a call, and vmap around."""
        return jax.jit(jax.vmap(lambda x, w: function(x[None], w), in_axes=(0, None)))

    own = mapped(
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    product = mapped(lambda x, w: as_product(x, w, padding))
    first = torch.from_numpy(maps.transpose(0, 3, 1, 2).copy())
    weights = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    last = first.to(memory_format=torch.channels_last)
    weights_last = weights.to(memory_format=torch.channels_last)
    runs: dict[str, Run] = {
        "xla": lambda: jax.block_until_ready(own(x, w)),
        "other": lambda: jax.block_until_ready(product(x, w)),
        "torch, channels first": lambda: conv2d(first, weights, padding=1),
        "torch, channels last": lambda: conv2d(last, weights_last, padding=1),
    }
    taken = takes_product("cpu", x.shape[1:], kernel.shape, (1, 1))
    return runs, "other" if taken else "xla"


def seconds(runs: dict[str, Run], repeats: int) -> dict[str, float]:
    """Of each, the median of repeats in turn, after one to compile and warm up."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    names: Sequence[str] = list(runs)
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in (*names[turn:], *names[:turn]):
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
