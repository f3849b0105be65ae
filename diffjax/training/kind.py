"""What tells one kind of diffusion model in training from another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Int32, UInt8

from diffjax.checkpoints.naming import Names

Ids = Int32[np.ndarray, "b ..."]


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """Networks that are trained together, and what they are shown.

    Attributes:
        networks: with initial weights, by part of ``DiffusionModel``: the denoiser, and
            what encodes its conditions if they are not ids themselves.
        ids: (items, random) → the ids that each item is shown with.
        nothing: the ids of no condition.
        shown: the ids that sample images are drawn for.
        further: images that follow the data's, as items of their own.
        logit_normal: of these, mean and standard deviation of logit t/T; None for
            uniform t.
        bound_weight: of the variational bound, where a variance is predicted.
        pipeline: the class of diffusers that loads the result.
        stored: the networks' names there, each with its tensors' names and its config.
        vocabulary: of a model of captions, with
        tokenizer: the folder of its files.
        class_names: the classes of a model of classes.
    """

    networks: Mapping[str, nnx.Module]
    ids: Callable[[Int32[np.ndarray, " b"], np.random.Generator], Ids]
    nothing: Int32[np.ndarray, "..."]
    shown: Ids
    further: UInt8[np.ndarray, "m H W 3"]
    logit_normal: tuple[float, float] | None = None
    bound_weight: float = 0.0
    pipeline: str
    stored: Mapping[str, tuple[Names, Mapping[str, Any]]]
    vocabulary: Sequence[str] = ()
    tokenizer: Path | None = None
    class_names: Sequence[str] = ()
