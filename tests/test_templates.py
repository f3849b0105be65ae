"""CLIP_benchmark's files of class names and templates."""

import json

import pytest

from diffjax.data.prompts import Prompts
from diffjax.data.templates import read_clip_benchmark
from diffjax.errors import DiffjaxError

NAMES = ["tench", "great white shark"]
EXPECTED = Prompts(
    prompts=(
        "a photo of a tench.",
        "a drawing of the tench",
        "a photo of a great white shark.",
        "a drawing of the great white shark",
    ),
    classidx=(0, 0, 1, 1),
    class_names=tuple(NAMES),
)


def write(path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["{c}", "{}"])
@pytest.mark.parametrize("kind", ["text", "list", "table"])
def test_every_format_gives_the_same_prompts(tmp_path, kind, place):
    templates = [f"a photo of a {place}.", f"a drawing of the {place}"]
    make = {
        "text": lambda entries: "\n".join(entries) + "\n\n",
        "list": lambda entries: entries,
        "table": lambda entries: {"other": ["x", "y"], "imagenet1k": entries},
    }[kind]
    end = "txt" if kind == "text" else "json"
    prompts = read_clip_benchmark(
        write(tmp_path / f"names.{end}", make(NAMES)),
        write(tmp_path / f"templates.{end}", make(templates)),
        "imagenet1k" if kind == "table" else None,
    )
    assert prompts == EXPECTED


def test_one_file_may_be_a_table_alone(tmp_path):
    names = write(tmp_path / "names.txt", "tench\r\ngreat white shark")
    table = {"imagenet1k": ["a photo of a {c}.", "a drawing of the {c}"]}
    templates = write(tmp_path / "templates.json", table)
    assert read_clip_benchmark(names, templates, "imagenet1k") == EXPECTED


def test_names_keep_their_braces_and_separators(tmp_path):
    names = write(tmp_path / "names.txt", "{c}\na\u2028b\n")
    prompts = read_clip_benchmark(names, write(tmp_path / "t.txt", "see {c}"))
    assert prompts.prompts == ("see {c}", "see a\u2028b")


def test_classes_of_one_name_are_kept_with_a_warning(tmp_path):
    names = write(tmp_path / "names.json", ["missile", "tench", "missile"])
    with pytest.warns(UserWarning, match="share the name 'missile'"):
        prompts = read_clip_benchmark(names, write(tmp_path / "t.txt", "a {c}"))
    assert prompts.classidx == (0, 1, 2)


@pytest.mark.parametrize(
    ("names", "templates", "dataset", "message"),
    [
        ([], ["{c}"], None, r"names\.json is empty"),
        ("", ["{c}"], None, r"names\.json is not JSON"),
        ("[" * 100_000, ["{c}"], None, r"names\.json is not JSON"),
        (["a", ""], ["{c}"], None, r"names\.json must hold a list of texts"),
        (["a", 1], ["{c}"], None, "list of texts"),
        ("3", ["{c}"], None, "list of texts"),
        (["a"], ["{c}"], None, r"names\.json with .*at least two"),
        (["a", "b"], ["x"], None, "exactly once"),
        (["a", "b"], ["{c} and {c}"], None, "exactly once"),
        (["a", "b"], ["{c} {x}"], None, "brace besides"),
        (["a", "b"], ["{c}", "{c}"], None, r"templates\.json has .*twice"),
        ({"x": ["a", "b"], "y": []}, ["{c}"], None, "name one of them: x, y"),
        ({"x": ["a", "b"]}, ["{c}"], "z", r"names\.json 'z'; choose one of x"),
        ({"x": {"a": ["b"]}}, ["{c}"], "x", "list of texts"),
        (["a", "b"], ["{c}"], "x", "leave out the name 'x'"),
    ],
)
def test_files_that_are_refused(tmp_path, names, templates, dataset, message):
    names = write(tmp_path / "names.json", names)
    templates = write(tmp_path / "templates.json", templates)
    with pytest.raises(DiffjaxError, match=message):
        read_clip_benchmark(names, templates, dataset)


def test_files_that_cannot_be_read(tmp_path):
    names = write(tmp_path / "names.txt", "a\nb")
    with pytest.raises(DiffjaxError, match=r"no file .*none\.txt"):
        read_clip_benchmark(names, tmp_path / "none.txt")
    with pytest.raises(DiffjaxError, match="is a folder"):
        read_clip_benchmark(tmp_path, names)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café\nthé".encode("latin-1"))
    with pytest.raises(DiffjaxError, match="not UTF-8"):
        read_clip_benchmark(latin, names)
