"""CLIP and OpenCLIP as zero-shot classifiers: classes by their prompts.

    t(prompt), i(image)     unit vectors that the two towers give
    t(class) ∝ mean of t(prompt) over the prompts of the class, of length 1 again
    log p(class | image) = log softmax of  exp(logit_scale) i · t(class)

Radford et al. 2021, section 3.1. A class of many templates costs no more per image than
one of a single prompt.
"""

import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from diffjax.baselines.classifier import (
    CONTRASTIVE,
    Classifier,
    ZeroShot,
    batch_of,
    in_batches,
)
from diffjax.checkpoints.contrastive import (
    Contrastive,
    files_of,
    load_contrastive,
    names_in,
)
from diffjax.checkpoints.hub import fetch
from diffjax.checkpoints.parts import Access
from diffjax.checkpoints.places import ADDRESS, existing
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError, overflowed
from diffjax.models.config import differing
from diffjax.models.network import Network, digest
from diffjax.scoring.cost import count_flops
from diffjax.tracing import jit

# those that the paper compares with, by OpenCLIP's names of their architectures
SHORT = {
    "RN50": "timm/resnet50_clip.openai",
    "ViT-B-32": "timm/vit_base_patch32_clip_224.openai",
    "ViT-L-14": "timm/vit_large_patch14_clip_224.openai",
    "ViT-H-14": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
}
PROMPTS_AT_ONCE = {"cpu": 64}  # of which features are computed together
AT_ONCE_ELSEWHERE = 512
PROMPTS_IN_MEMORY = 2**14  # whose token ids are held together
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class ClipClassifier(Classifier):
    """CLIP that was told of C classes.

    Attributes:
        loaded: the towers.
        classes: t of each class.
        prompts: 16 hex digits of the prompts' token ids and classes.
    """

    loaded: Contrastive
    classes: Float32[np.ndarray, "C p"]
    prompts: str
    kind = CONTRASTIVE

    def describe(self) -> dict[str, Any]:
        """All that decides its numbers; plain JSON values."""
        return described(self.loaded) | {"prompts": self.prompts}

    def log_probabilities(
        self, pixels: Float32[np.ndarray, "n H W 3"]
    ) -> Float32[np.ndarray, "n C"]:
        """Logarithms of the probabilities of all classes."""
        loaded, n = self.loaded, len(self.class_names)
        classes = jax.device_put(self.classes * np.float32(loaded.scale))
        return in_batches(
            lambda x: _log_probabilities(loaded.vision, classes, x),
            pixels,
            batch_of(self.resolution) if len(pixels) > 1 else 1,
            n,
        )


@dataclass(frozen=True, kw_only=True)
class Clip(ZeroShot):
    """CLIP before it is told of classes.

    Attributes:
        name: what was asked for.
        loaded: the towers.
    """

    name: str
    loaded: Contrastive

    def of(self, prompts: Prompts) -> ClipClassifier:
        """A classifier of the classes that the prompts stand for, in their order.

        Raises:
            DiffjaxError: if the text encoder's numbers overflow.
        """
        texts, classidx = prompts.prompts, np.asarray(prompts.classidx)
        n, width = len(prompts.class_names), self.loaded.config.text.projection_dim
        sums, told = np.zeros((n, width)), []
        for start in range(0, len(texts), PROMPTS_IN_MEMORY):
            some = slice(start, start + PROMPTS_IN_MEMORY)
            features, ids = self.texts(texts[some])
            np.add.at(sums, classidx[some], features)
            told.append(digest([repr(ids.tolist()), repr(classidx[some].tolist())]))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        processing = self.loaded.processing
        return ClipClassifier(
            name=self.name,
            see=processing,
            resolution=processing.resolution,
            class_names=prompts.class_names,
            loaded=self.loaded,
            classes=(sums / lengths).astype(np.float32),
            prompts=digest(told),
        )

    def texts(
        self, prompts: tuple[str, ...]
    ) -> tuple[Float32[np.ndarray, "n p"], np.ndarray]:
        """t of each prompt, and token ids; of prompts that are cut a line tells.

        Raises:
            DiffjaxError: if the text encoder's numbers overflow.
        """
        tokens = self.loaded.tokenize(prompts)
        if cut := [
            t for t, is_cut in zip(prompts, tokens.truncated, strict=True) if is_cut
        ]:
            warnings.warn(
                f"{self.name} reads {tokens.ids.shape[1]} tokens of a prompt; "
                f"{len(cut)} longer ones are cut, the first: {cut[0]!r:.100}.",
                stacklevel=3,
            )
        at_once = PROMPTS_AT_ONCE.get(jax.default_backend(), AT_ONCE_ELSEWHERE)
        network, width = self.loaded.text, self.loaded.config.text.projection_dim
        found = in_batches(
            lambda ids: _text_features(network, ids), tokens.ids, at_once, width
        )
        if not np.isfinite(found).all():
            raise overflowed(f"What {self.name} says of a prompt is not finite")
        return found, tokens.ids

    def images(
        self, pixels: Float32[np.ndarray, "n H W 3"]
    ) -> Float32[np.ndarray, "n p"]:
        """i of each image, by pixels as ``processing`` makes them."""
        network, width = self.loaded.vision, self.loaded.config.text.projection_dim
        batch = batch_of(self.loaded.processing.resolution)
        return in_batches(lambda x: _image_features(network, x), pixels, batch, width)


def load_clip(name: str, **access: Unpack[Access]) -> Clip:
    """Load CLIP or OpenCLIP.

    Args:
        name: a folder, a file of weights in one, a key of ``SHORT``, or a Hugging Face
            id: the first of these that there is.
        **access: how the Hub is reached.

    Raises:
        DiffjaxError: if there is none, or its files are missing, damaged or do not fit.
    """
    return Clip(name=f"clip:{name}", loaded=load_contrastive(_place(name, access)))


def image_flops(classifier: ClipClassifier) -> float:
    """FLOPs that one image takes; those of the texts are for all images together."""
    loaded, edge = classifier.loaded, classifier.resolution
    pixels = jnp.zeros((1, edge, edge, 3), jnp.float32)
    classes = jnp.asarray(classifier.classes)
    # a function of its own, which no jit has traced with fused attention
    return count_flops(partial(_answers), loaded.vision, classes, pixels)


def described(loaded: Contrastive) -> dict[str, Any]:
    """All that decides its numbers; plain JSON values."""
    config = loaded.config
    return {
        "weights": loaded.fingerprint,
        "configs": {
            "vision": {
                "class": type(config.vision).__name__,
                **differing(config.vision),
            },
            "text": differing(config.text),
        },
        "preprocessing": loaded.processing.describe(),
    }


def _place(name: str, access: Access) -> Path:
    path = existing(name)
    if path is not None:
        return path
    hub_id = SHORT.get(name, name.removeprefix(ADDRESS).removesuffix("/"))
    if not _HUB_ID.fullmatch(hub_id):
        raise DiffjaxError(
            f"clip:{name} is no folder or file here, no Hugging Face id, as "
            f"owner/name, and none of {', '.join(SHORT)}."
        )
    return fetch(hub_id, select=files_of, locate=_whole, **access)


def _whole(folder: Path) -> Path:
    """A local copy, if it has all that is read."""
    files_of(names_in(folder), str(folder))
    return folder


def _unit(x: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
    unit: Array = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return unit


@jit
def _text_features(network: Network, ids: Array) -> Float[Array, "n p"]:
    model: Any = network.module()
    features: Array = _unit(jax.vmap(lambda each: model(each).pooled)(ids))
    return features


def _seen(network: Network, pixels: Array) -> Float[Array, "n p"]:
    model: Any = network.module()
    features: Array = _unit(jax.vmap(model)(pixels))
    return features


def _answers(network: Network, classes: Array, pixels: Array) -> Float[Array, "n C"]:
    features = _seen(network, pixels)
    logits = jnp.matmul(features, classes.T, precision="highest")
    out: Array = jax.nn.log_softmax(logits)
    return out


_image_features, _log_probabilities = jit(_seen), jit(_answers)
