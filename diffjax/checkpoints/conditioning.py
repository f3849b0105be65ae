"""The text encoders and tokenizers of a pipeline, made a conditioner."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.checkpoints import fitting
from diffjax.checkpoints.families import TextFamily
from diffjax.checkpoints.lora import Changes
from diffjax.checkpoints.networks import load_network, network_config, network_shapes
from diffjax.checkpoints.t5_tokenizer import T5Tokenizer
from diffjax.checkpoints.textual_inversion import Learned
from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.checkpoints.unchanged import if_unchanged, state_of
from diffjax.data.kept import KeptArrays, digest_of
from diffjax.errors import DiffjaxError
from diffjax.models.conditioner import Conditioner, Remembered, TextEncoder
from diffjax.models.config import differing
from diffjax.models.network import Network, OnDemand
from diffjax.models.t5 import T5Config

# Bytes from which on a text encoder is let go once prompts are encoded. On a CPU its
# memory is better used while tiles are evaluated, and to read it again takes less time
# than one of them; elsewhere that holds of the largest alone.
LARGE_TEXT_ENCODER = {"cpu": 2**28}
LARGE_ELSEWHERE = 2**32
FINGERPRINT = {"fingerprint": np.array("0" * 16)}  # as it is kept


def load_conditioner(
    family: TextFamily,
    folder: Path,
    elsewhere: Mapping[str, Path],
    *,
    variant: str | None,
    weights: Mapping[str, Path],
    kept: KeptArrays | None = None,
    empty_is_zero: bool = False,
    changes: Mapping[str, Changes] | None = None,
    words: Mapping[str, Learned] | None = None,
) -> Conditioner:
    """Load the text encoders and tokenizers of a pipeline.

    Args:
        family: which they are.
        folder: of the pipeline.
        elsewhere: folders of components that are not taken from there.
        variant: of the weights, if they have it.
        weights: files to read weights from instead, by component.
        kept: where conditions are kept, with the fingerprints of text encoders by
            their files: one that is known there is not read before it is needed.
        empty_is_zero: whether the empty prompt's condition is zeros.
        changes: what LoRAs add to the weights, by component.
        words: what textual inversion adds to the tables, by component.

    Raises:
        DiffjaxError: if one of them is missing, damaged or does not fit.
    """

    def place(name: str) -> Path:
        return elsewhere.get(name, folder / name)

    encoders = {}
    for name, (tokenizer, kind, length, lower) in family.encoders.items():
        config = network_config(place(name), name, kind)
        learned, first = (words or {}).get(name, Learned()), 0
        tokenize: Tokenizer | T5Tokenizer
        if length is None:
            length = config.max_position_embeddings
            tokenize, first, config = _with_words(
                place(tokenizer), length, config, learned
            )
        else:
            tokenize = T5Tokenizer(
                place(tokenizer), length, config.vocab_size, lower=lower
            )
        network = _text_encoder(
            place(name),
            name,
            kind,
            config,
            variant,
            weights.get(name),
            kept,
            (changes or {}).get(name, Changes()),
            learned,
            first,
        )
        if name in elsewhere and tokenizer not in elsewhere:
            own = folder / name  # it is not fetched where it is replaced
            rows = network_config(own, name, kind).vocab_size if own.is_dir() else 0
            known = max(rows, tokenize.size)
            fitting.check_tokens(config.vocab_size, known, folder)
        encoders[name] = TextEncoder(
            network=network, tokenize=tokenize, config=differing(config)
        )
    # what has to be read again for every question, remembers its answers
    again = not all(each.network.keep for each in encoders.values())
    return Conditioner(
        encoders=encoders,
        combine=family.combine,
        kept=Remembered() if kept is None and again else kept,
        empty_is_zero=empty_is_zero,
        settings=dict(family.settings or {}),
    )


def _with_words(
    folder: Path, length: int, config: Any, learned: Learned
) -> tuple[Tokenizer, int, Any]:
    """A tokenizer with learned words, the id of the first, and a table's config."""
    rows, n = config.vocab_size, len(learned.tokens)
    tokenize = Tokenizer(folder, length, rows + n, learned.tokens)
    first = tokenize.size - n
    if first > rows:
        Tokenizer(folder, length, rows)  # says that the two do not go together
    if learned.rows is not None and learned.rows.shape[1] != config.hidden_size:
        raise DiffjaxError(
            f"{learned.files[0]} has vectors of width {learned.rows.shape[1]}, but the "
            f"text encoder's are of {config.hidden_size}. It was trained for another "
            "model."
        )
    return tokenize, first, replace(config, vocab_size=max(rows, tokenize.size))


def _text_encoder(
    folder: Path,
    name: str,
    kind: str | None,
    config: Any,
    variant: str | None,
    weights: Path | None,
    kept: KeptArrays | None,
    changes: Changes,
    learned: Learned,
    first: int,
) -> OnDemand:
    # T5's weights would take 19 GB in float32; it was trained in bfloat16
    large = isinstance(config, T5Config) and jax.default_backend() != "cpu"
    dtype = jnp.bfloat16 if large else jnp.float32

    def read() -> Network:
        network = load_network(
            folder,
            name,
            dtype,
            on_host=True,
            variant=variant,
            weights=weights,
            network=kind,
            changes=changes,
        )[1]
        return learned.added(network, config, first) if learned.tokens else network

    places = [folder, *([] if weights is None else [weights]), *changes.files]
    places += learned.files
    shapes = network_shapes(folder, config, dtype)
    files = [(str(place.resolve()), state_of(place)) for place in places]
    decides = repr((files, variant, shapes.layout))
    weights_of = digest_of(decides, changes.identity, learned.identity)
    known = None if kept is None else kept.get(weights_of, FINGERPRINT)
    most = LARGE_TEXT_ENCODER.get(jax.default_backend(), LARGE_ELSEWHERE)
    network = OnDemand(
        if_unchanged(read, places),
        shapes,
        keep=shapes.bytes <= most,
        fingerprint=None if known is None else str(known["fingerprint"]),
    )
    if known is None:
        network.on_host()  # complains now of what is missing or damaged
        if kept is not None:
            kept.put(weights_of, {"fingerprint": np.array(network.fingerprint)})
    return network
