"""What layers of Stable Diffusion 2 cost a TPU's compiler, and what it makes of them.

    python scripts/measure_layers.py --effort 0 -1

Each is compiled alone, for 16 feature maps of 64×64 with 320 channels on one v5e, in
bfloat16, and the first two layers of the text encoder for 16 prompts, in float32:
seconds of the processor, temporaries, bytes accessed, and the cycles that the compiler
reckons with for all but fused kernels. Nothing is run, and no TPU is needed.
"""

import argparse
import os
import re
import time

SIDE, CHANNELS, HEADS, TEXT, BATCH = 64, 320, 5, (77, 1024), 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", default="v5e:1x1")
    parser.add_argument(
        "--effort",
        type=float,
        nargs="+",
        default=[0.0],
        help="exec_time_optimization_effort of the compiler; its own is 0",
    )
    parser.add_argument("--layers", nargs="+", help="of the table; all by default")
    args = parser.parse_args()

    from diffjax.cli.ahead import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # before JAX starts
    import jax
    import jax.numpy as jnp

    from diffjax.models.attention import traced_for
    from diffjax.models.clip import CLIPTextConfig, CLIPTextModel
    from diffjax.models.layers import Attention, Make, ResnetBlock2D
    from diffjax.models.network import Network
    from diffjax.models.transformer import FeedForward, Transformer2DModel
    from diffjax.scoring.compiling import placed, topology

    make = Make(rngs=None, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    image, tokens = (SIDE, SIDE, CHANNELS), (SIDE**2, CHANNELS)
    resnet = ResnetBlock2D(
        CHANNELS, CHANNELS, make, groups=32, epsilon=1e-5, embedding=1280
    )
    clip = CLIPTextConfig(
        hidden_size=TEXT[1],
        intermediate_size=4 * TEXT[1],
        num_hidden_layers=2,
        num_attention_heads=16,
        hidden_act="gelu",
    )
    encoder = CLIPTextModel(clip, rngs=None)
    layers = {
        "convolution": (make.conv(CHANNELS, CHANNELS, 3), image),
        "residual block": (resnet, image, (1280,)),
        "self-attention": (Attention(CHANNELS, HEADS, make), tokens),
        "cross-attention": (
            Attention(CHANNELS, HEADS, make, condition_features=TEXT[1]),
            tokens,
            TEXT,
        ),
        "feed-forward": (FeedForward(CHANNELS, make), tokens),
        "transformer": (
            Transformer2DModel(CHANNELS, HEADS, TEXT[1], 32, make),
            image,
            TEXT,
        ),
        "text encoder, 2 layers": (encoder, TEXT[:1]),
    }
    where = topology(args.devices)
    print("| layer | effort | processor, s | temporaries, MB | GB | cycles | copies |")
    print("|---|---|---|---|---|---|---|")
    for name, (module, *shapes) in layers.items():
        if args.layers and name not in args.layers:
            continue
        network = Network.of(module)

        @jax.jit
        def mapped(network, *arrays):
            return jax.vmap(lambda *one: network.module()(*one))(*arrays)

        kind = jnp.int32 if module is encoder else jnp.bfloat16
        arrays = [jax.ShapeDtypeStruct((BATCH, *s), kind) for s in shapes]
        with traced_for(where.target):
            lowered = mapped.lower(*placed((network, *arrays), where))
        for effort in args.effort:
            start = time.process_time()
            options = {"exec_time_optimization_effort": effort}
            done = lowered.compile(options if effort else None)
            seconds = time.process_time() - start
            text = done.as_text()
            entry = text[text.index("ENTRY ") :]
            cycles = sum(map(int, re.findall(r'estimated_cycles":"(\d+)"', entry)))
            copies = len(re.findall(r" copy\(", entry))
            size = done.cost_analysis()["bytes accessed"]
            temporaries = done.memory_analysis().temp_size_in_bytes
            print(
                f"| {name} | {effort:g} | {seconds:.1f} | {temporaries / 1e6:.0f} | "
                f"{size / 1e9:.2f} | {cycles:,} | {copies} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
