"""What an evaluation costs in each family, and how much of it classes share.

    python scripts/shared_flops.py [sd-2-base sdxl …]

From the programs of tiles of published sizes, as XLA counts them before it optimises
(`cost_analysis`); nothing is compiled and no weights are drawn. "alone" is one class of
one sample; "of 8" one of eight classes that are told the same noised latent; "shared"
is what is computed once for all classes, in per cent of "alone".
"""

import argparse
import sys
from functools import partial

CLASSES = 8


def flops(name: str, resolution: int | None, classes: int) -> tuple[int, float]:
    """Pixels along an edge, and FLOPs of one sample under so many classes."""
    import jax
    import jax.numpy as jnp

    from diffjax.evaluation.bench import random_subject
    from diffjax.scoring.cost import count_flops
    from diffjax.scoring.grid import Blocks, block_errors
    from diffjax.scoring.noise import SeededNoise

    subject = random_subject(name, "float32", weights=False)
    edge = resolution or subject.resolution
    conditions = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((classes, *leaf.shape[1:]), leaf.dtype),
        subject.conditions,
    )
    blocks = Blocks(
        keys=jax.ShapeDtypeStruct((1,), jnp.uint32),
        z0=jax.ShapeDtypeStruct((1, *subject.latent_shape(edge)), jnp.float32),
        timesteps=jax.ShapeDtypeStruct((1,), jnp.int32),
        noises=jax.ShapeDtypeStruct((1,), jnp.int32),
        classes=jax.ShapeDtypeStruct((1, classes), jnp.int32),
    )
    told = subject.denoiser, subject.schedule, SeededNoise.of(0), conditions, blocks
    return edge, count_flops(partial(block_errors, losses=("l2",)), *told)


def row(name: str, resolution: int | None) -> str:
    """A line of the table."""
    edge, alone = flops(name, resolution, 1)
    together = flops(name, resolution, CLASSES)[1]
    shared = (CLASSES * alone - together) / (CLASSES - 1) / alone
    return (
        f"| {name}, {edge} px | {alone / 1e12:.3f} | {together / CLASSES / 1e12:.3f} "
        f"| {100 * shared:.2g} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="*",
        default=[
            *("sd-1.5", "sd-2-base", "sdxl", "sd-3-medium"),
            *("sd-3.5-medium", "sd-3.5-large", "flux-dev", "pixart-sigma"),
            "dit-256",
        ],
    )
    parser.add_argument("--resolution", type=int, help="instead of the model's")
    args = parser.parse_args()
    print(f"| model | TFLOP alone | of {CLASSES} classes | shared |\n|---|---|---|---|")
    for name in args.models:
        print(row(name, args.resolution), flush=True)


if __name__ == "__main__":
    sys.exit(main())
