"""A trained network that answers as a classifier does: images → log-probabilities.

FOLDER/config.json          the network's numbers, and the names of the classes
FOLDER/model.safetensors    its weights
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, UInt8

from diffjax.baselines.resnet import ResNet, ResNetConfig
from diffjax.checkpoints.components import TRANSFORMERS_STEM
from diffjax.checkpoints.formats import read_tensors
from diffjax.checkpoints.mappings import fill, to_torch
from diffjax.checkpoints.naming import Names
from diffjax.checkpoints.networks import read_json
from diffjax.data.images import load_image, preprocess
from diffjax.errors import DiffjaxError
from diffjax.files import write_json
from diffjax.models.config import differing
from diffjax.models.network import Network
from diffjax.tracing import jit

EMBEDDED = {"resnet": Path(__file__).parents[1] / "assets" / "resnet"}
CONFIG, WEIGHTS = "config.json", f"{TRANSFORMERS_STEM}.safetensors"
BATCH = 128  # images in one call: another number would be compiled anew


@dataclass(frozen=True, kw_only=True)
class ImageClassifier:
    """A network that is trained on the classes that it tells apart.

    Attributes:
        name: what was asked for.
        network: pixels [H, W, 3] → logits [C].
        resolution: pixels along each edge that it is trained for.
        class_names: of the C classes.
        config: what the network's config says.
    """

    name: str
    network: Network
    resolution: int
    class_names: tuple[str, ...]
    config: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """All that decides its numbers; plain JSON values."""
        return {
            "weights": self.network.fingerprint,
            "configs": {"classifier": self.config},
        }

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def device(self) -> str:
        """What computes."""
        return f"1 × {jax.devices()[0].device_kind}"

    def pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "H W 3"]:
        """Pixels in [−1, 1] as the network sees them: resized and cropped.

        Raises:
            DiffjaxError: if the image is too small or too long.
        """
        return preprocess(load_image(image), self.resolution)

    def log_probabilities(
        self, pixels: Float32[np.ndarray, "n H W 3"]
    ) -> Float32[np.ndarray, "n C"]:
        """Logarithms of the probabilities of all classes."""
        n = len(pixels)
        found = []
        for start in range(0, n, BATCH):
            batch = pixels[start : start + BATCH]
            sides = [(0, BATCH - len(batch))] + [(0, 0)] * 3
            found.append(
                jax.device_get(_log_softmax(self.network, np.pad(batch, sides)))
            )
        empty = [np.empty((0, self.n_classes), np.float32)]
        return np.concatenate(found or empty)[:n]


def save_classifier(model: ResNet, class_names: Sequence[str], folder: Path) -> None:
    """Write a network and the names of its classes; the folder is made.

    Raises:
        ValueError: if there are more or fewer names than classes.
    """
    from safetensors.numpy import save_file

    if len(class_names) != model.config.num_classes:
        raise ValueError(
            f"{len(class_names)} names, {model.config.num_classes} classes"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_torch(nnx.state(model, nnx.Param), Names())
    stored = {key: np.ascontiguousarray(t, np.float32) for key, t in tensors.items()}
    save_file(stored, folder / WEIGHTS)
    names = {"id2label": {str(i): name for i, name in enumerate(class_names)}}
    write_json(folder / CONFIG, model.config.as_dict() | names, indent=2)


def load_classifier(name_or_folder: str | Path) -> ImageClassifier:
    """Read what ``save_classifier`` has written.

    Args:
        name_or_folder: a folder, or "resnet", which comes with the package.

    Raises:
        DiffjaxError: if there is no such folder, a file is missing or damaged, or they
            do not belong together.
    """
    folder = EMBEDDED.get(str(name_or_folder), Path(name_or_folder))
    if not folder.is_dir():
        raise DiffjaxError(
            f"{name_or_folder} is neither {' nor '.join(EMBEDDED)}, which comes with "
            "the package, nor a folder; `diffjax train resnet` makes one, RUN/model."
        )
    path = folder / CONFIG
    raw = read_json(path)
    config = ResNetConfig.from_dict(raw, str(path))
    labels = raw.get("id2label")
    wanted = [str(i) for i in range(config.num_classes)]
    if not isinstance(labels, dict) or sorted(labels) != sorted(wanted):
        raise DiffjaxError(
            f"{path}: id2label must name the classes 0 to {config.num_classes - 1}."
        )
    graphdef, abstract = nnx.split(ResNet(config, rngs=None))
    tensors = read_tensors(folder, stem=TRANSFORMERS_STEM)
    return ImageClassifier(
        name=str(name_or_folder),
        network=Network(graphdef, fill(abstract, tensors, Names(), str(folder))),
        resolution=config.sample_size,
        class_names=tuple(str(labels[each]) for each in wanted),
        config=differing(config),
    )


@jit
def _log_softmax(network: Network, pixels: Array) -> Float[Array, "n C"]:
    model: Any = network.module()
    return jax.nn.log_softmax(jax.vmap(model)(pixels))
