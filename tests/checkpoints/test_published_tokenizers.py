"""The published tokenizers, from the part of their vocabulary that a few words need.

Where the folder ../shared/real has the published files, the same is tried with all of
them and thousands of texts, against transformers.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from odd_texts import odd_texts, package_texts
from transformers import CLIPTokenizer

from diffjax.checkpoints.tokenizer import Tokenizer

REAL = Path(__file__).parents[3] / "shared" / "real"

# of the vocabulary and merges that all published CLIP tokenizers share
VOCABULARY = {
    **{"!": 0, "a": 64, "c": 66, "h": 71, "o": 78, "p": 79, "t": 83, "w": 86},
    **{"!</w>": 256, ".</w>": 269, "a</w>": 320, "f</w>": 325, "o</w>": 334},
    **{"t</w>": 339, "w</w>": 342, "x</w>": 343, "to</w>": 531, "at</w>": 536},
    **{"of</w>": 539, "ho": 606, "pho": 816, "photo</w>": 1125, "wo": 1613},
    **{"cat</w>": 2368, "wow</w>": 2781},
    **{"<|startoftext|>": 49406, "<|endoftext|>": 49407},
}
MERGES = [
    *("t o</w>", "a t</w>", "o f</w>", "h o", "p ho", "pho to</w>"),
    *("w o", "c at</w>", "wo w</w>"),
]


def flagged(content, **flags):
    plain = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"content": content, **plain, **flags}


START, END = "<|startoftext|>", "<|endoftext|>"
OLD = {
    "bos_token": flagged(START),
    "eos_token": flagged(END),
    "unk_token": flagged(END),
}
COMMON = {
    "add_prefix_space": False,
    "do_lower_case": True,
    "errors": "replace",
    "model_max_length": 77,
    "tokenizer_class": "CLIPTokenizer",
}
OLD_CONFIG = COMMON | {k: {"__type": "AddedToken"} | v for k, v in OLD.items()}
NEWER = {
    "bos_token": flagged(START),
    "eos_token": flagged(END, normalized=False),
    "unk_token": flagged(END, normalized=False),
}


def newer_config(pad, **decoder):
    texts = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    special = {
        "49406": flagged(START, special=True),
        "49407": flagged(END, normalized=False, special=True),
    }
    return COMMON | texts | {"added_tokens_decoder": decoder | special}


# name: (special_tokens_map.json, tokenizer_config.json, the id that fills up)
PUBLISHED = {
    "Stable Diffusion 1": (
        OLD | {"pad_token": END},
        OLD_CONFIG | {"pad_token": END},
        49407,
    ),
    "Stable Diffusion 2": (  # the files contradict each other
        OLD | {"pad_token": "!"},
        OLD_CONFIG | {"pad_token": END},
        0,
    ),
    "Stable Diffusion XL, second": (
        OLD | {"pad_token": "!"},
        OLD_CONFIG | {"pad_token": "!"},
        0,
    ),
    "Stable Diffusion 3 and FLUX.1": (
        NEWER | {"pad_token": flagged(END, normalized=False)},
        newer_config(END),
        49407,
    ),
    "Stable Diffusion 3, second": (
        NEWER | {"pad_token": flagged("!", normalized=False)},
        newer_config("!", **{"0": flagged("!", normalized=False, special=True)}),
        0,
    ),
}
PHOTO = [49406, 320, 1125, 539, 320, 2368, 269, 49407]


@pytest.fixture(params=PUBLISHED)
def published(request, tmp_path):
    """A folder with a published tokenizer's settings, and the id that fills up."""
    special, config, pad = PUBLISHED[request.param]
    for name, content in (
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config),
        ("vocab.json", VOCABULARY),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    # the published files have the one or the other end of line
    (tmp_path / "merges.txt").write_bytes(
        "\r\n".join(["#version: 0.2", *MERGES]).encode()
    )
    return tmp_path, pad


def test_prompts_are_filled_up_as_in_training(published):
    folder, pad = published
    tokenizer = Tokenizer(folder, 77, 49408)
    assert tokenizer.length == 77
    found = tokenizer(["a photo of a cat.", "", "a " * 80])
    np.testing.assert_array_equal(found.ids[0], PHOTO + [pad] * 69)
    np.testing.assert_array_equal(found.ids[1], [49406, 49407] + [pad] * 75)
    np.testing.assert_array_equal(found.ids[2], [49406, *[320] * 75, 49407])
    assert found.truncated == (False, False, True)


def test_the_text_of_special_tokens_in_a_prompt(published):
    """Where "!" fills up, it is that token in a prompt too."""
    folder, pad = published
    wow, x, capitals = Tokenizer(folder, 12, 49408)(
        ["wow! ! a", f"x{END}x{START}x", "<|STARTOFTEXT|>a"]
    ).ids
    sign = 256 if pad else 0
    np.testing.assert_array_equal(
        wow, [49406, 2781, sign, sign, 320, 49407] + [pad] * 6
    )
    np.testing.assert_array_equal(
        x, [49406, 343, 49407, 343, 49406, 343, 49407] + [pad] * 5
    )
    # the start is looked for in lower case
    np.testing.assert_array_equal(capitals, [49406, 49406, 320, 49407] + [pad] * 8)


def test_transformers_reads_the_same(published):
    folder, _ = published
    theirs = CLIPTokenizer.from_pretrained(folder)
    texts = ["a photo of a cat.", "wow! ! a", f"{END}x<|STARTOFTEXT|>", "<|ENDOFTEXT|>"]
    expected = theirs(texts, padding="max_length", truncation=True)["input_ids"]
    np.testing.assert_array_equal(Tokenizer(folder, 77, 49408)(texts).ids, expected)


# -- with the published files ------------------------------------------------------


def real_settings():
    """Folders with settings of a CLIP tokenizer, of which no two are equal."""
    seen = {}
    for path in sorted(REAL.glob("**/tokenizer_config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["tokenizer_class"] == "CLIPTokenizer":
            config.pop("name_or_path", None)
            special = (path.parent / "special_tokens_map.json").read_text()
            seen.setdefault((json.dumps(config), special), path.parent)
    return list(seen.values())


VOCABULARIES = [
    REAL / "runwayml__stable-diffusion-v1-5" / "tokenizer",
    REAL / "stabilityai__stable-diffusion-2-base" / "tokenizer",
]
real = pytest.mark.skipif(
    not all((folder / "vocab.json").is_file() for folder in VOCABULARIES),
    reason="the published files are not beside the checkout",
)


@real
def test_the_vocabularies_are_one():
    first, second = (
        json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        for folder in VOCABULARIES
    )
    assert first == second and VOCABULARY.items() <= first.items()
    lines = [
        (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        for folder in VOCABULARIES
    ]
    assert lines[0] == lines[1] and set(MERGES) <= set(lines[0])


@real
@pytest.mark.parametrize(
    "settings", real_settings(), ids=lambda p: "-".join(p.parts[-2:])
)
def test_any_text_with_the_published_files(settings, tmp_path):
    sources = VOCABULARIES[1 if "-2" in settings.parent.name else 0]
    for folder, name in (
        (settings, "tokenizer_config.json"),
        (settings, "special_tokens_map.json"),
        (sources, "vocab.json"),
        (sources, "merges.txt"),
    ):
        (tmp_path / name).symlink_to(folder / name)
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer(tmp_path, 77, 49408)
    texts = package_texts() + odd_texts(3000)
    expected = theirs(texts, padding="max_length", truncation=True)["input_ids"]
    whole = theirs(texts, truncation=False, verbose=False)["input_ids"]
    found = ours(texts)
    np.testing.assert_array_equal(found.ids, expected)
    assert found.truncated == tuple(len(ids) > 77 for ids in whole)
    assert sum(found.truncated) > 50
