"""Where a run begins that does not begin at random: the weights of a trained model.

Its autoencoder is kept as it is, with the scaling factor; denoiser and text encoder are
trained on. Words may be new: a token that both vocabularies have keeps its row of the
embedding table, and any other begins with a random one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.resolving import resolve
from diffjax.checkpoints.tokenizer_files import read_tokenizer_files
from diffjax.errors import DiffjaxError
from diffjax.models.diffusion import DiffusionModel
from diffjax.schedules import Schedule

TOKENS = ("token_embedding", "embedding")  # the path of the table
FREE = ("vocab_size", "scaling_factor")  # settings that may differ
REMEDY = "\nName a model of this recipe, or begin without --init."


class Beginning:
    """A trained model to begin from.

    Attributes:
        model: its networks, in float32.
        fingerprint: of their weights; what a run records.
    """

    def __init__(self, name_or_path: str) -> None:
        """Load it.

        Raises:
            DiffjaxError: if it cannot be found or read.
        """
        self.name = name_or_path
        self.model: DiffusionModel = load_model(name_or_path, dtype="float32")
        self.fingerprint = self.model.weights

    def check(
        self,
        networks: Mapping[str, Any],
        schedule: Schedule | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        """Compare what need not show in the shapes of weights.

        Args:
            networks: of the recipe, by part of ``DiffusionModel``.
            schedule: the recipe's schedule, if it is to be compared.
            class_names: of the data, for a model of classes.

        Raises:
            DiffjaxError: if they differ from the model's; the message says in what.
        """
        lines = []
        for part, network in networks.items():
            trained = self.model.networks().get(part)
            theirs = {} if trained is None else asdict(trained.module().config)
            lines += [
                f"  {part.replace('_', ' ')}: {key}: {theirs.get(key)} → {value}"
                for key, value in asdict(network.config).items()
                if key not in FREE and theirs.get(key) != value
            ]
        if schedule is not None:
            there, here = self.model.schedule, schedule
            if there.prediction_type != here.prediction_type:
                lines.append(
                    f"  scheduler: prediction_type: {there.prediction_type} → "
                    f"{here.prediction_type}"
                )
            if there.fingerprint != here.fingerprint:
                lines.append("  scheduler: other noise levels")
        names = self.model.class_names
        if class_names and names is not None and names != tuple(class_names):
            lines.append(f"  classes: {', '.join(names)} → {', '.join(class_names)}")
        if lines:
            raise DiffjaxError(
                f"The recipe cannot begin from {self.name}, whose settings differ "
                "(there → recipe):\n" + "\n".join(lines) + REMEDY
            )

    def weights(
        self,
        network: nnx.Module,
        part: str,
        vocabulary: Sequence[str] = (),
    ) -> Any:
        """The network with the weights of a part of the model.

        Args:
            network: with initial weights; those of new tokens are kept.
            part: autoencoder, denoiser or text_encoder.
            vocabulary: the tokens that a text encoder shall know, in order.

        Raises:
            DiffjaxError: if a weight is missing or has another shape; the message
                names all of them.
        """
        trained = self.model.networks().get(part)
        graph, state = nnx.split(network)
        ours = dict(nnx.to_flat_state(state))
        theirs = dict(nnx.to_flat_state(trained.state)) if trained is not None else {}
        if vocabulary and TOKENS in theirs:
            table = self._table(ours[TOKENS], theirs[TOKENS], vocabulary)
            theirs[TOKENS] = theirs[TOKENS].replace(table)
        different = [
            f"  {'.'.join(map(str, path))}: {_shape(theirs.get(path))} → "
            f"{_shape(ours.get(path))}"
            for path in sorted(ours.keys() | theirs.keys(), key=str)
            if _shape(ours.get(path)) != _shape(theirs.get(path))
        ]
        if different:
            raise DiffjaxError(
                f"The recipe's {part.replace('_', ' ')} cannot begin from {self.name}, "
                f"which differs in {len(different)} weights (there → recipe):\n"
                + "\n".join(different)
                + REMEDY
            )
        # copies: a step gives its input's buffers away
        filled = [(path, ours[path].replace(jnp.array(theirs[path]))) for path in ours]
        return nnx.merge(graph, nnx.from_flat_state(filled))

    def _table(self, ours: Any, theirs: Any, vocabulary: Sequence[str]) -> jax.Array:
        files = read_tokenizer_files(resolve(self.name) / "tokenizer")
        ids = files.vocabulary
        table = np.array(ours[...])
        for row, token in enumerate(vocabulary):
            if token in ids and table.shape[1:] == theirs.shape[1:]:
                table[row] = theirs[ids[token]]
        return jnp.asarray(table)


def _shape(leaf: Any) -> tuple[int, ...] | None:
    return None if leaf is None else tuple(leaf.shape)
