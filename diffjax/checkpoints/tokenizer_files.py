"""What the files of a CLIP tokenizer say, where several of them say it.

Folders hold some of these files, by the version of transformers that wrote them, and
the files may contradict each other. Here, as in ``CLIPTokenizer`` of transformers 5,

- tokenizer.json wins over vocab.json and merges.txt;
- special_tokens_map.json wins over tokenizer_config.json, unless the latter has
  ``added_tokens_decoder``: a newer version wrote that, and it says all;
- added tokens are those of ``added_tokens_decoder`` if it is there, else those of
  added_tokens.json and of tokenizer.json, of which the latter wins.

Stable Diffusion 2 needs the second rule: its prompts are padded with "!", as its
special_tokens_map.json says, but its tokenizer_config.json names another token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from diffjax.errors import DiffjaxError
from diffjax.files import read_json_object, read_text

if TYPE_CHECKING:
    from tokenizers import AddedToken

Token = Union[str, "AddedToken"]  # a bare text, or one with flags

AGAIN = "Download it again."
START, END = "<|startoftext|>", "<|endoftext|>"
NEEDED = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
# in the order in which tokens that are in no vocabulary get their ids
ROLES = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
]
LIST, OLD_LIST = "extra_special_tokens", "additional_special_tokens"
CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast")
# of tokenizer_config.json: they would change ids, and nobody publishes them. All other
# settings that are not read here change none: lower case, say, is not a choice.
REFUSED = (
    "fast_tokenizer_files",
    "gguf_file",
    "init_inputs",
    "merges",
    "model_specific_special_tokens",
    "tokenizer_object",
    "tokenizer_padding",
    "tokenizer_truncation",
    "vocab",
)


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer as its folder describes it.

    Attributes:
        vocabulary: token → id, without added tokens.
        merges: pairs in their order.
        special: the texts of bos_token, eos_token, unk_token and pad_token.
        added: tokens that are never split, in the order in which new ones get ids.
        added_ids: the ids that the folder gives to some of them.
        max_length: of a prompt with its start and end, if it says so.
        padding_side: "right" or "left".
        truncation_side: "right" or "left".
        split_special_tokens: read special tokens inside a prompt as plain text.
    """

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    special: dict[str, str]
    added: list[Token]
    added_ids: dict[str, int]
    max_length: int | None
    padding_side: str
    truncation_side: str
    split_special_tokens: bool


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Read all that ``folder`` has.

    Raises:
        DiffjaxError: if files are missing or damaged, or have a setting that is not a
            CLIP tokenizer's.
    """
    try:
        return _read(folder)
    except DiffjaxError:
        raise
    except Exception as error:  # damaged JSON can have any shape
        raise not_readable(folder, error) from error


def not_readable(folder: Path, error: Exception) -> DiffjaxError:
    """What to say of files that are missing or damaged."""
    return DiffjaxError(
        f"{folder}: not a readable CLIP tokenizer ({error}). It needs vocab.json and "
        "merges.txt, or tokenizer.json; download it again."
    )


def _read(folder: Path) -> TokenizerFiles:
    path = folder / "tokenizer_config.json"
    config, whole = _object(path), _object(folder / "tokenizer.json")
    newer = "added_tokens_decoder" in config
    over = {} if newer else _object(folder / "special_tokens_map.json")
    older = {} if newer else _object(folder / "added_tokens.json")
    settings = {**config, **over}
    _check_settings(path, settings)
    named, extra = _special_tokens(config, over)
    if newer:
        added = {
            int(index): _token(value)
            for index, value in config["added_tokens_decoder"].items()
        }
    else:
        roles = _known_as_special(config, over)
        added = {}
        for text, index in older.items():  # which do not hold flags
            flags = {"special": text in roles, "normalized": text not in roles}
            added[index] = _token({"content": text}, **flags)
        for value in whole.get("added_tokens", ()):
            added[value["id"]] = _token(value)
    by_text = {_text(token): token for token in added.values()}
    for role in ROLES:
        named[role] = by_text.get(_text(named[role]), named[role])
    special = {role: _text(named[role]) for role in NEEDED}
    for role, text in special.items():
        if not text:
            says = folder / "special_tokens_map.json" if role in over else path
            raise DiffjaxError(
                f"{folder}: the tokenizer has no {role}; name one in {says.name}, such "
                f'as "{role}": "{NEEDED[role]}".'
            )
    vocabulary, merges = _vocabulary_and_merges(folder, whole)
    return TokenizerFiles(
        vocabulary=vocabulary,
        merges=merges,
        special=special,
        added=_in_order(added, named, extra),
        added_ids={_text(token): index for index, token in added.items()},
        max_length=_max_length(path, settings),
        padding_side=_side(path, settings, "padding_side", whole.get("padding")),
        truncation_side=_side(
            path, settings, "truncation_side", whole.get("truncation")
        ),
        split_special_tokens=bool(settings.get("split_special_tokens")),
    )


def _object(path: Path) -> dict[str, Any]:
    """A file's JSON object, empty if there is no such file."""
    if not path.exists():
        return {}
    content: dict[str, Any] = read_json_object(path, path.name, AGAIN)
    return content


def _check_settings(path: Path, config: Mapping[str, Any]) -> None:
    name = config.get("tokenizer_class")
    if name is not None and name not in CLASSES:
        raise DiffjaxError(
            f"{path} describes a {name}; as tokenizer diffjax runs {CLASSES[0]}."
        )
    for key in REFUSED:
        if config.get(key):
            raise DiffjaxError(
                f"{path}: {key} is not implemented. Load the tokenizer with "
                "transformers and save it again, then this setting is gone."
            )


def _token(value: Any, **flags: bool) -> Token:
    """A token from JSON: its text, or an object with that and its flags."""
    from tokenizers import AddedToken

    if isinstance(value, str | AddedToken):
        return value
    known = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError(f"{value!r} is not a token")
    return AddedToken(**{key: value[key] for key in known if key in value} | flags)


def _text(token: Token | None) -> str:
    return "" if token is None else str(getattr(token, "content", token))


def _special_tokens(
    config: Mapping[str, Any], over: Mapping[str, Any]
) -> tuple[dict[str, Token | None], list[Token]]:
    """Special tokens by name, and further ones of a list.

    Args:
        config: of tokenizer_config.json.
        over: of special_tokens_map.json, where it counts.
    """
    named: dict[str, Token | None] = dict.fromkeys(ROLES) | NEEDED
    texts: dict[str, Any] = {}  # of names that transformers does not know
    for settings, flags in ((config, {}), (over, {"special": True})):
        for key, value in settings.items():
            if key in ROLES and value is None:
                named[key] = None
            elif key in ROLES or (isinstance(value, dict) and key.endswith("_token")):
                named[key] = _token(value, **flags)
            elif isinstance(value, str) and key.endswith("_token"):
                (texts if settings is config else named)[key] = value
    lists = {key: config[key] for key in (LIST, OLD_LIST) if key in config}
    if OLD_LIST in lists and not lists.get(LIST):
        lists[LIST] = lists.pop(OLD_LIST)
    more = over.get(LIST)
    for named_tokens in (lists.get(LIST), more):  # names and tokens, not a list
        if isinstance(named_tokens, dict):
            texts |= named_tokens
            lists.pop(LIST, None)
    if isinstance(more, list):
        more = [_token(each, special=True) for each in more]
        lists[LIST] = [*(lists.get(LIST) or []), *more]
    if OLD_LIST in over:
        lists[OLD_LIST] = [_token(each, special=True) for each in over[OLD_LIST] or []]
    named |= {key: _token(value) for key, value in texts.items()}
    extra = lists.get(LIST, lists.get(OLD_LIST)) or []
    return named, [_token(each) for each in extra]


def _known_as_special(config: Mapping[str, Any], over: Mapping[str, Any]) -> set[str]:
    """Texts by which a token of added_tokens.json is a special one.

    Flags can be given in both files, but here only a bare text in
    tokenizer_config.json counts, and no list with the older name in
    special_tokens_map.json.
    """
    values = {**config, **over}
    extra = config.get(LIST) or config.get(OLD_LIST)
    texts = [
        *(values.get(role) for role in ROLES if role in over or role in config),
        *(extra if isinstance(extra, list) else ()),
    ]
    found = {text for text in texts if isinstance(text, str)}
    over_list = over.get(LIST)
    over_tokens = [over[role] for role in ROLES if isinstance(over.get(role), dict)]
    over_tokens += over_list if isinstance(over_list, list) else []
    return found | {_text(_token(token)) for token in over_tokens}


def _in_order(
    added: Mapping[int, Token], named: Mapping[str, Token | None], extra: list[Token]
) -> list[Token]:
    """All tokens to add: numbered ones by their ids, then special ones."""
    from tokenizers import AddedToken

    tokens = [added[index] for index in sorted(added)]
    texts = {_text(token) for token in tokens}
    for token in [*named.values(), *extra]:
        # one text may come twice with different flags; the last ones count
        if token is not None and _text(token) not in texts and token not in tokens:
            tokens.append(token)
    roles = {_text(token) for token in named.values()}
    for token in tokens:
        if isinstance(token, AddedToken) and _text(token) in roles:
            token.special = True
    return tokens


def _max_length(path: Path, config: Mapping[str, Any]) -> int | None:
    value = config.get("model_max_length", config.get("max_len"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        raise DiffjaxError(f"{path}: model_max_length={value!r} is no whole number.")
    return int(value)


def _side(
    path: Path, config: Mapping[str, Any], key: str, saved: Mapping[str, Any] | None
) -> str:
    """Where padding or truncation happens; ``saved`` is tokenizer.json's section."""
    side = config.get(key) or (saved or {}).get("direction", "right").lower()
    if side not in ("right", "left"):
        raise DiffjaxError(f"{path}: {key}={side!r} must be right or left.")
    return str(side)


def _vocabulary_and_merges(
    folder: Path, whole: Mapping[str, Any]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    if whole:
        model = whole["model"]
        if model.get("type") not in (None, "BPE"):
            raise DiffjaxError(
                f"{folder / 'tokenizer.json'} is a {model['type']} tokenizer; "
                "diffjax runs CLIP's, which is a BPE."
            )
        vocabulary, pairs = model["vocab"], model["merges"]
    else:
        files = ("vocab.json", "merges.txt")
        if missing := [name for name in files if not (folder / name).exists()]:
            raise DiffjaxError(
                f"{folder} lacks {' and '.join(missing)}: a CLIP tokenizer has both "
                f"{' and '.join(files)}, or tokenizer.json. {AGAIN}"
            )
        vocabulary = read_json_object(folder / "vocab.json", "vocabulary", AGAIN)
        lines = read_text(folder / "merges.txt", "list of merges").split("\n")
        pairs = [line.rstrip("\r") for line in lines]
        pairs = [line for line in pairs if line and not line.startswith("#version")]
    split = (pair.split(" ") if isinstance(pair, str) else pair for pair in pairs)
    return vocabulary, [(left, right) for left, right in split]
