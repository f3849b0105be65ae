"""LAION's judges of images, each a small head on CLIP ViT-L/14's features.

    aesthetic   score = (… (i W1 + b1) W2 + b2 …) Wn + bn
    unsafe      x = i in float16; x[c] = number of its text in the list of c, or 0
                x = (x − mean) / √variance
                x = max(x W + b, 0)          (each layer but the last)
                p = 1 / (1 + exp(−(x W + b)))

with i the features of an image, of length 1. Nothing lies between the layers of the
aesthetic head. The detector of unsafe images takes a few of its inputs, columns c, for
names of categories: it writes them with six decimals and looks them up in the lists of
those that its training images had, features in float16. So it has to see float16 as
well, as LAION's tables of its probabilities were made; of other numbers hardly any is
in a list, which moves a probability of 0.046, for one, to 0.079.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

LEAST_DEVIATION = 1e-7  # Keras' epsilon

Features = Float32[np.ndarray, "n p"]
# weights [p, q] and biases [q]: p numbers → q numbers
Layer = tuple[Float32[np.ndarray, "_ _"], Float32[np.ndarray, " _"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class AestheticHead:
    """How much people would like an image, on a scale from 1 to 10.

    Attributes:
        layers: from p numbers to one.
    """

    layers: tuple[Layer, ...]

    @property
    def width(self) -> int:
        """p, of the features."""
        return len(self.layers[0][0])

    def __call__(self, features: Features) -> Float32[np.ndarray, " n"]:
        """Features of length 1 → scores."""
        x = features
        for weight, bias in self.layers:
            x = x @ weight + bias
        return x[:, 0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """How probably an image is not safe for work.

    Attributes:
        categories: by column c the number of each text in its list, from 1.
        mean: of the inputs.
        variance: of the inputs.
        layers: from p numbers to one.
    """

    categories: Mapping[int, Mapping[str, int]]
    mean: Float32[np.ndarray, " p"]
    variance: Float32[np.ndarray, " p"]
    layers: tuple[Layer, ...]

    @property
    def width(self) -> int:
        """p, of the features."""
        return len(self.mean)

    def __call__(self, features: Features) -> Float32[np.ndarray, " n"]:
        """Features of length 1 → probabilities."""
        x = features.astype(np.float16).astype(np.float32)
        for column, numbers in self.categories.items():
            x[:, column] = [numbers.get(f"{value:.6f}", 0) for value in x[:, column]]
        x = (x - self.mean) / np.maximum(np.sqrt(self.variance), LEAST_DEVIATION)
        *layers, last = self.layers
        for weight, bias in layers:
            x = np.maximum(x @ weight + bias, 0)
        logits = (x @ last[0] + last[1])[:, 0]
        # of a large −logit the exponential is infinite, and the probability 0
        with np.errstate(over="ignore"):
            found: Float32[np.ndarray, " n"] = 1 / (1 + np.exp(-logits))
        return found
