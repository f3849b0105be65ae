"""CLIP_benchmark's files of class names and templates."""

import importlib.util
import json
from pathlib import Path

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


def test_a_template_given_twice_is_taken_once(tmp_path):
    templates = write(tmp_path / "t.json", ["{c}的照片。", "{c}。", "{c}的照片。"])
    with pytest.warns(UserWarning, match="has twice, taken once: '{c}的照片。'"):
        prompts = read_clip_benchmark(["猫", "狗"], templates)
    assert prompts.prompts == ("猫的照片。", "猫。", "狗的照片。", "狗。")


def test_a_class_without_a_name_has_prompts_all_the_same(tmp_path):
    """CLIP_benchmark's clevr_closest_object_distance has such a one."""
    names = write(tmp_path / "names.json", ["near", "", "distant"])
    with pytest.warns(UserWarning, match="the name of class 1 is empty"):
        prompts = read_clip_benchmark(names, write(tmp_path / "t.txt", "{c} shapes."))
    assert prompts.prompts == ("near shapes.", " shapes.", "distant shapes.")
    assert prompts.class_names == ("near", "(empty)", "distant")
    prompts.write_csv(tmp_path / "prompts.csv")
    assert Prompts.read_csv(tmp_path / "prompts.csv") == prompts


def test_whole_prompts_of_each_class(tmp_path):
    """As CLIP_benchmark's cupl_prompts.json has them."""
    table = {"imagenet1k": {"hen": ["A hen.", "Hens peck.", "A hen."], "cat": ["Cat."]}}
    templates = write(tmp_path / "t.json", table)
    with pytest.warns(UserWarning, match="class 'hen' has twice"):
        prompts = read_clip_benchmark(["cat", "hen"], templates, "imagenet1k")
    assert prompts.prompts == ("Cat.", "A hen.", "Hens peck.")
    assert prompts.classidx == (0, 1, 1)


INSTALLED = importlib.util.find_spec("clip_benchmark")


@pytest.mark.skipif(INSTALLED is None, reason="clip_benchmark is not installed")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_file_that_clip_benchmark_brings():
    folder = Path(INSTALLED.submodule_search_locations[0], "datasets")
    kind = "zeroshot_classification_templates.json"
    tables = {p: json.loads(p.read_text()) for p in folder.glob("*_classnames.json")}
    assert len(tables) == 5
    for path, sets in tables.items():
        file = folder / f"{path.name.partition('_')[0]}_{kind}"
        templates = json.loads(file.read_text())
        for name, classes in sets.items():
            key = name if name in templates else "imagenet1k"
            prompts = read_clip_benchmark(classes, file, key)
            distinct = dict.fromkeys(templates[key])
            assert prompts.prompts == tuple(
                each.format(c=c) for c in classes for each in distinct
            )
            if key == name:
                assert prompts == read_clip_benchmark(path, file, name)
    english, cupl = folder / "en_classnames.json", folder / "cupl_prompts.json"
    assert len(read_clip_benchmark(english, cupl, "imagenet1k").class_names) == 1000
    others = folder / "nllb_dist13b_prompts.json"
    for language in json.loads(others.read_text()):
        read_clip_benchmark(["tench", "hen"], others, language)


@pytest.mark.parametrize(
    ("names", "templates", "dataset", "message"),
    [
        ([], ["{c}"], None, r"names\.json is empty"),
        ("", ["{c}"], None, r"names\.json is not JSON"),
        ("[" * 100_000, ["{c}"], None, r"names\.json is not JSON"),
        (["a", ""], ["{c}"], None, r"1 prompt\(s\) would be empty"),
        (["a", "b"], ["{c}", ""], None, r"templates\.json must .* none of them empty"),
        ([[0, 5], ["a", "b"]], ["{c}"], None, "every class of the data set"),
        (["a", "b"], {"x": {"a": ["an a"]}}, "x", "no prompts for the class 'b'"),
        (
            ["a", "b"],
            {"x": {"a": ["an a"], "b": "b"}},
            "x",
            "class 'b' must hold a list",
        ),
        (["a", 1], ["{c}"], None, "list of texts"),
        ("3", ["{c}"], None, "list of texts"),
        (["a"], ["{c}"], None, r"names\.json with .*at least two"),
        (["a", "b"], ["x"], None, "exactly once"),
        (["a", "b"], ["{c} and {c}"], None, "exactly once"),
        (["a", "b"], ["{c} {x}"], None, "brace besides"),
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
