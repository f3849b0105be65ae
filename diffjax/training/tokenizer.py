"""A small CLIP tokenizer: byte-level BPE with the end-of-word mark ``</w>``.

The vocabulary is laid out as CLIP's: 256 byte symbols, the same 256 at a word's end,
one token a merge, start and end of text last. So any text has tokens, and
transformers' CLIPTokenizer reads the files.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from diffjax.files import write_json

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_WORD = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|_")  # CLIP's: letters, a digit, signs

START, END = "<|startoftext|>", "<|endoftext|>"

# Class names of common data sets, so that other labels too are a few pieces each.
WORDS = tuple(
    """
airplane automobile bird cat deer dog frog horse ship truck car plane boat bicycle
motorcycle bus train van monkey apple aquarium fish baby bear beaver bed bee beetle
bottle bowl boy bridge butterfly camel can castle caterpillar cattle chair chimpanzee
clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn mower leopard lion lizard
lobster man maple tree mountain mouse mushroom oak orange orchid otter palm pear
pickup pine plain plate poppy porcupine possum rabbit raccoon ray road rocket rose
sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower
sweet pepper table tank telephone television tiger tractor trout tulip turtle
wardrobe whale willow wolf woman worm bloom daisy lily iris violet pizza burger
sandwich salad soup cake bread rice sushi steak coffee cup astronaut person face hand
tabby kitten puppy terrier retriever poodle beagle pug boxer spaniel shepherd hound
bulldog siamese persian eagle owl duck goose hen rooster parrot penguin ostrich
swan toad salamander gecko goldfish jellyfish insect ant fly moth cow sheep goat pig
donkey zebra giraffe animal pet food flower aircraft vehicle object building street
shirt trouser pullover dress coat sandal sneaker bag boot zero one two three four five
six seven eight nine red green blue black white small large old new painting drawing
sketch toy sculpture type texture scene picture image photo photograph bad good dark
bright close clean dirty weird the of in on with and a an this many some my
""".split()  # noqa: SIM905
)


def byte_symbols() -> dict[int, str]:
    """A printable character for each byte, in the order of CLIP's vocabulary.

    Printable bytes stand for themselves, the other ones for the characters from
    U+0100 on (Radford et al. 2019).
    """
    others = (byte for byte in range(256) if byte not in _PRINTABLE)
    symbols = {byte: chr(byte) for byte in _PRINTABLE}
    return symbols | {byte: chr(256 + i) for i, byte in enumerate(others)}


def train_tokenizer(captions: Iterable[str], size: int) -> tuple[list[str], list[str]]:
    """Learn merges from captions and ``WORDS``: the most frequent pair, repeatedly.

    The tokenizers library has such a trainer too, but breaks ties by chance.

    Args:
        captions: texts whose words should become one token each.
        size: the vocabulary's size at most; 514 of it are the bytes and the marks.

    Returns:
        The vocabulary in order, and the merges as lines of merges.txt.
    """
    counts = Counter(WORDS)
    for caption in captions:
        # captions count more, so that their words are whole before the budget ends
        counts.update(dict.fromkeys(_WORD.findall(caption.lower()), 100))
    symbols = byte_symbols()
    alphabet = [*symbols.values(), *(each + "</w>" for each in symbols.values())]
    pieces = {word: [symbols[byte] for byte in word.encode("utf-8")] for word in counts}
    for parts in pieces.values():
        parts[-1] += "</w>"
    merges: list[tuple[str, str]] = []
    while len(alphabet) + len(merges) + 2 < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}
    merged = [left + right for left, right in merges]
    lines = [f"{left} {right}" for left, right in merges]
    return [*alphabet, *dict.fromkeys(merged), START, END], lines


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def save_tokenizer(
    vocabulary: Sequence[str], merges: Sequence[str], length: int, folder: Path
) -> None:
    """Write the files from which transformers' CLIPTokenizer loads."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: i for i, token in enumerate(vocabulary)}
    write_json(folder / "vocab.json", ids)
    lines = ["#version: 0.2", *merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": length,
            "do_lower_case": True,
            "errors": "replace",
            "add_prefix_space": False,
            **special,
        },
    )
