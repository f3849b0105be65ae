"""Of several files that contradict each other the same counts as in transformers."""

import json
import random

import numpy as np
import pipelines
import pytest
from transformers import AddedToken, CLIPTokenizer

from diffjax.checkpoints.tokenizer import Tokenizer
from diffjax.errors import DiffjaxError

START, END = "<|startoftext|>", "<|endoftext|>"
TEXTS = [
    "a photo of a cat.",
    "wow! ! !!",
    f"{END} x <|STARTOFTEXT|>y",
    "<|ENDOFTEXT|>a",
    "<pad> <cat>  <CAT> x<cat>y <mask>",
    "new <new> <New>s",
    "x" * 60,
    "  ! ",
    "<x> <y> <|endoftext|>",
    "[SEP]a[CLS]",
]
# in the vocabulary or not
TOKENS = [START, END, "!", "a</w>"] + [f"<{x}>" for x in ("pad", "cat", "new", "mask")]
TOKENS += ["<x>", "<y>", "[SEP]", "[CLS]"]
ROLES = [
    f"{role}_token" for role in ("bos", "eos", "unk", "pad", "sep", "cls", "image")
]
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
# settings that change no ids, whatever they say
IDLE = {
    "add_bos_token": False,
    "add_eos_token": False,
    "add_prefix_space": True,
    "backend": "sentencepiece",
    "clean_up_tokenization_spaces": True,
    "do_lower_case": False,
    "errors": "ignore",
    "legacy": True,
    "max_length": 5,
    "name_or_path": "x",
    "pad_to_multiple_of": 13,
    "pad_token_type_id": 7,
    "special_tokens_map_file": "x",
    "strip_accents": True,
    "stride": 3,
    "tokenizer_file": "/nowhere.json",
    "use_fast": False,
}


class Folders:
    """Folders of a tokenizer's files in any combination, by a seed."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def maybe(self, p):
        return self.draw.random() < p

    def flags(self, *names):
        return {name: self.maybe(0.5) for name in names}

    def token(self, **kind):
        content = self.draw.choice(TOKENS)
        if self.maybe(0.5):
            return content
        return {"content": content} | self.flags(*FLAGS) | kind

    def special(self, **kind):
        chosen = {}
        for role in ROLES:
            if self.maybe(0.5 if role in ROLES[:4] else 0.15):
                chosen[role] = self.token(**kind)
        if self.maybe(0.05):
            chosen[self.draw.choice(ROLES[4:6])] = None
        if self.maybe(0.25):
            some = self.draw.choices(TOKENS, k=self.draw.randrange(4))
            chosen["additional_special_tokens"] = some
        if self.maybe(0.15):
            named = {"boi_token": self.draw.choice(TOKENS), "zzz": "<x>"}
            chosen["extra_special_tokens"] = self.draw.choice([named, ["<y>"], []])
        return chosen

    def numbered(self, vocabulary, after):
        """Some tokens and their ids: new ones come after the vocabulary."""
        some = self.draw.sample(TOKENS, self.draw.randrange(5))
        new = iter(range(after, after + 9))
        return {t: vocabulary[t] if t in vocabulary else next(new) for t in some}

    def config(self, vocabulary):
        chosen = self.special(__type="AddedToken")
        if self.maybe(0.8):
            chosen["model_max_length"] = self.draw.choice([8, 12, 77, 10**30, 1e30])
        if self.maybe(0.2):
            chosen["max_len"] = 9
        for side in ("padding_side", "truncation_side"):
            if self.maybe(0.15):
                chosen[side] = "left"
        if self.maybe(0.1):
            chosen["split_special_tokens"] = True
        chosen |= {key: value for key, value in IDLE.items() if self.maybe(0.1)}
        if self.maybe(0.35):
            chosen["added_tokens_decoder"] = {
                str(i): {"content": text} | self.flags(*FLAGS, "special")
                for text, i in self.numbered(vocabulary, len(vocabulary)).items()
            }
        return chosen

    def whole(self, vocabulary, merges, after):
        content = {
            "added_tokens": [
                {"id": i, "content": text} | self.flags(*FLAGS, "special")
                for text, i in self.numbered(vocabulary, after).items()
            ],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
            "version": "1.0",
        } | dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
        padding = {"strategy": {"Fixed": 9}, "pad_to_multiple_of": None, "pad_id": 1}
        padding |= {"pad_type_id": 0, "pad_token": "<pad>", "direction": "Left"}
        cut = {"max_length": 5, "strategy": "LongestFirst", "stride": 0}
        cut |= {"direction": "Left"}
        content["padding"] = padding if self.maybe(0.2) else None
        content["truncation"] = cut if self.maybe(0.2) else None
        return content

    def write(self, folder):
        pipelines.write_tokenizer(folder, "!", 12)
        (folder / "tokenizer_config.json").unlink()
        vocabulary = json.loads((folder / "vocab.json").read_text())
        files = {}
        if self.maybe(0.8):
            files["tokenizer_config"] = self.config(vocabulary)
        if self.maybe(0.6):
            files["special_tokens_map"] = self.special()
        older = {}
        if self.maybe(0.4):
            older = files["added_tokens"] = self.numbered(vocabulary, len(vocabulary))
        if self.maybe(0.4):
            lines = (folder / "merges.txt").read_text().splitlines()[1:]
            after = len({*vocabulary, *older})
            files["tokenizer"] = self.whole(vocabulary | older, lines, after)
            files["tokenizer"]["model"]["vocab"] = vocabulary
            if self.maybe(0.5):
                (folder / "vocab.json").unlink()
                (folder / "merges.txt").unlink()
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_any_combination_of_files(tmp_path, first):
    """The same ids, or an error about ids that the files give and tokens do not get."""
    equal = 0
    for seed in range(first, first + 25):
        folder = tmp_path / str(seed)
        Folders(seed).write(folder)
        theirs = CLIPTokenizer.from_pretrained(folder)
        try:
            ours = Tokenizer(folder, 30, 1000)
        except DiffjaxError as error:
            assert "by its place it gets" in str(error), seed
            continue
        equal += 1
        assert ours.length == min(30, theirs.model_max_length), seed
        expected = theirs(
            TEXTS, padding="max_length", max_length=ours.length, truncation=True
        )["input_ids"]
        np.testing.assert_array_equal(ours(TEXTS).ids, expected, str(seed))
    assert equal > 20


def test_the_map_counts_unless_the_config_says_all(tmp_path):
    """The rule in its shortest form: which file names the token that fills up."""
    pipelines.write_tokenizer(tmp_path, END, 12)
    ids = json.loads((tmp_path / "vocab.json").read_text())

    def filled(**config):
        pipelines.edit_json(tmp_path / "tokenizer_config.json", **config)
        return int(Tokenizer(tmp_path, 77, 1000)([""]).ids[0, -1])

    special = tmp_path / "special_tokens_map.json"
    assert filled() == ids[END]
    special.write_text(json.dumps({"pad_token": "!"}))
    assert filled() == ids["!"]
    assert filled(pad_token=None) == ids["!"]
    decoder = {str(ids["a"]): {"content": "a", "special": True}}
    assert filled(pad_token="a", added_tokens_decoder=decoder) == ids["a"]
    special.unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert int(Tokenizer(tmp_path, 77, 1000)([""]).ids[0, -1]) == ids[END]


def test_tokenizer_json_counts_before_vocabulary_and_merges(tmp_path):
    pipelines.write_tokenizer(tmp_path, "!", 12)
    CLIPTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    expected = Tokenizer(tmp_path, 77, 1000)(TEXTS).ids
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    np.testing.assert_array_equal(Tokenizer(tmp_path, 77, 1000)(TEXTS).ids, expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer_class": "T5Tokenizer"}, ["T5Tokenizer", "CLIPTokenizer"]),
        ({"merges": "elsewhere.txt"}, ["merges is not implemented"]),
        ({"gguf_file": "x.gguf"}, ["gguf_file is not implemented"]),
        ({"model_max_length": -1}, ["model_max_length=-1", "no room"]),
        ({"model_max_length": 0}, ["model_max_length=0", "no room"]),
        ({"model_max_length": 2}, ["no room for a prompt"]),
        ({"model_max_length": 0.5}, ["model_max_length=0.5", "no whole number"]),
        ({"model_max_length": "77"}, ["model_max_length='77'"]),
        (
            {"model_max_length": float("nan")},
            ["config.json", "Download it again"],
        ),
        (
            {"model_max_length": float("inf")},
            ["config.json", "Download it again"],
        ),
        ({"padding_side": "top"}, ["padding_side='top'"]),
        ({"pad_token": 3}, ["3 is not a token"]),
        ({"pad_token": {"text": "!"}}, ["is not a token"]),
        ({"pad_token": ""}, ["tokenizer_config", '"pad_token": "<|endoftext|>"']),
        ({"added_tokens_decoder": {"9": {"content": "<x>"}}}, ["'<x>'", "id 9"]),
        ({"added_tokens_decoder": {"x": {"content": "<x>"}}}, ["not a readable"]),
        ({"added_tokens_decoder": [1]}, ["not a readable"]),
    ],
)
def test_what_no_clip_tokenizer_says_is_an_error(tmp_path, changes, words):
    pipelines.write_tokenizer(tmp_path)
    pipelines.edit_json(tmp_path / "tokenizer_config.json", **changes)
    with pytest.raises(DiffjaxError) as caught:
        Tokenizer(tmp_path, 77, 1000)
    for word in [str(tmp_path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(tmp_path, name):
    pipelines.write_tokenizer(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DiffjaxError, match=f"lacks {name}: .* or tokenizer.json"):
        Tokenizer(tmp_path, 77, 1000)


@pytest.mark.parametrize("text", ["\ud800", "a cat \udfff"])
def test_a_prompt_that_is_no_text_is_an_error(tmp_path, text):
    pipelines.write_tokenizer(tmp_path)
    with pytest.raises(DiffjaxError, match=f"character {len(text)} is half of a pair"):
        Tokenizer(tmp_path, 77, 1000)(["a cat", text])


def test_null_takes_a_special_token_away(tmp_path):
    pipelines.write_tokenizer(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": null}')
    with pytest.raises(
        DiffjaxError, match="no eos_token; name one in special_tokens_map"
    ):
        Tokenizer(tmp_path, 77, 1000)


# -- added tokens ------------------------------------------------------------------

NEW = [
    "<cat-toy>",
    AddedToken("<sks>", normalized=False),
    AddedToken("lamp", single_word=True),
    AddedToken("<l>", lstrip=True, rstrip=True),
    AddedToken("<Big>", normalized=False, special=True),
]
PROMPTS = [
    "a photo of <cat-toy> and <Cat-Toy>.",
    "<sks> <SKS> x<sks>y",
    "a lamp, lamps, Lamp, redlamp",
    "a  <l>  b",
    "<Big><big> <cat-toy><cat-toy>",
    "<cat-toy> " * 40,
]


def numbered(tokens, vocabulary):
    """Ids of new tokens as older versions of transformers saved them, in two ways."""
    tokens = [AddedToken(t) if isinstance(t, str) else t for t in tokens]
    ids = {token.content: len(vocabulary) + k for k, token in enumerate(tokens)}
    return ids, {str(ids[t.content]): t.__getstate__() for t in tokens}


@pytest.mark.parametrize("way", ["tokenizer.json", "added_tokens_decoder", "old"])
def test_added_tokens_are_never_split(tmp_path, way):
    pipelines.write_tokenizer(tmp_path, "!", 40)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    ids, decoder = numbered(NEW, vocabulary)
    if way == "tokenizer.json":
        new = CLIPTokenizer.from_pretrained(tmp_path)
        assert new.add_tokens(NEW) == len(NEW)
        new.save_pretrained(tmp_path)
    elif way == "added_tokens_decoder":
        config = tmp_path / "tokenizer_config.json"
        pipelines.edit_json(config, added_tokens_decoder=decoder)
    else:
        (tmp_path / "added_tokens.json").write_text(json.dumps(ids))
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer(tmp_path, 40, len(vocabulary) + len(NEW))
    found = ours(PROMPTS)
    expected = theirs(PROMPTS, padding="max_length", truncation=True)["input_ids"]
    np.testing.assert_array_equal(found.ids, expected)
    assert ids["<cat-toy>"] in found.ids[0]
    assert (found.ids[5, 1:39] == ids["<cat-toy>"]).all()
    with pytest.raises(DiffjaxError, match="the text encoder knows"):
        Tokenizer(tmp_path, 40, len(vocabulary) + len(NEW) - 1)
