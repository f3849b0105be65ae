"""Makes diffjax/assets/laion/aesthetic.safetensors of LAION's published heads.

    python scripts/make_aesthetic_heads.py sac+logos+ava1-l14-linearMSE.pth \\
        sa_0_4_vit_l_14_linear.pth

Nothing lies between the layers of the first: their product, in float64, is one linear
map of 769 numbers, which scores as they do (tests/checkpoints/test_heads.py).
"""

import sys

import numpy as np
from safetensors.numpy import save_file

from diffjax.checkpoints.heads import EMBEDDED, load_aesthetic
from diffjax.choices import AESTHETIC_HEADS


def main() -> None:
    """Read the heads, in the order of ``AESTHETIC_HEADS``; write the products."""
    tensors = {}
    for name, path in zip(AESTHETIC_HEADS, sys.argv[1:], strict=True):
        layers = load_aesthetic(path).layers
        width = len(layers[0][0])
        weight, bias = np.eye(width), np.zeros(width)
        for w, b in layers:
            weight, bias = weight @ w, bias @ w + b
        tensors[f"{name}.weight"] = np.ascontiguousarray(weight.T, np.float32)
        tensors[f"{name}.bias"] = bias.astype(np.float32)
    EMBEDDED.parent.mkdir(exist_ok=True)
    save_file(tensors, EMBEDDED)
    print(f"wrote {EMBEDDED}")


if __name__ == "__main__":
    main()
