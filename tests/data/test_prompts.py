"""Templates, labels and prompts files."""

import dataclasses

import numpy as np
import pytest

from diffjax.data.prompts import (
    CIFAR10_TEMPLATE,
    Prompts,
    check_labels,
    split_labels,
)
from diffjax.errors import DiffjaxError


def test_labels_go_where_the_braces_are():
    assert Prompts.from_labels(["cat", "{dog}"], "a {}, small.").prompts == (
        "a cat, small.",
        "a {dog}, small.",
    )


def test_the_papers_spelling_stays():
    labels = ["airplane", "automobile", "bird"]
    assert Prompts.from_labels(labels).prompts[0] == "a photo of a airplane."
    blurry = Prompts.from_labels(labels, CIFAR10_TEMPLATE)
    assert blurry.prompts[1] == "a blurry photo of a automobile."


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a photo.", "exactly once"),
        ("", "exactly once"),
        ("a {} and a {}", "exactly once"),
        ("a {label}", "exactly once"),
        ("a {0}", "exactly once"),
        ("a {} {", "brace besides"),
        ("} a {}", "brace besides"),
        ("a {} of {kind}", "brace besides"),
        ("a {{}}", "brace besides"),
    ],
)
def test_templates_that_are_refused(template, message):
    with pytest.raises(DiffjaxError, match=message):
        Prompts.from_labels(["cat", "dog"], template)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "No labels"),
        (["cat"], "at least two"),
        (["cat", ""], "empty"),
        (["cat", " "], "empty"),
        (["cat", "dog", "cat"], "more than once: 'cat'"),
        (["cat", "cat "], "more than once"),
        (list("abcdefabcdef"), r"'a', 'b', 'c', 'd', 'e' and 1 more\."),
        ("cat,dog", "must be a list"),
    ],
)
def test_labels_that_are_refused(labels, message):
    with pytest.raises(DiffjaxError, match=message):
        Prompts.from_labels(labels)


def test_from_labels_with_several_templates():
    prompts = Prompts.from_labels(("cat", "dog"), ["a {}.", "the {}.", "{}"])
    assert prompts.prompts == ("a cat.", "the cat.", "cat", "a dog.", "the dog.", "dog")
    assert prompts.classidx == (0, 0, 0, 1, 1, 1)
    assert prompts.class_names == ("cat", "dog")
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompts.prompts = ()


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ([], "No template"),
        (["a {}", "a {}"], "more than once"),
        (["a {}", "b"], "exactly once"),
    ],
)
def test_from_labels_refuses_templates(templates, message):
    with pytest.raises(DiffjaxError, match=message):
        Prompts.from_labels(["cat", "dog"], templates)


@pytest.mark.parametrize(
    ("classidx", "class_names", "message"),
    [
        ((0, 1), ("a", "b"), "3 prompts but 2"),
        ((0, 0, 0), ("a",), "at least two"),
        ((0, 0, 0), ("a", "b"), r"out of range: 1\."),
        ((0, 1, 2), ("a", "b"), r"out of range: 2\."),
        ((0, 1, -1), ("a", "b"), r"out of range: -1\."),
    ],
)
def test_fields_must_fit_together(classidx, class_names, message):
    with pytest.raises(DiffjaxError, match=message):
        Prompts(prompts=("x", "y", "z"), classidx=classidx, class_names=class_names)


# Prompts files


def read(tmp_path, text: str, encoding: str = "utf-8") -> Prompts:
    path = tmp_path / "prompts.csv"
    path.write_bytes(text.encode(encoding))
    return Prompts.read_csv(path)


HEADER = "prompt,classname,classidx\n"


def test_read_csv(tmp_path):
    prompts = read(
        tmp_path,
        HEADER
        + '"a photo of a pug, a type of pet.",pug,1\n'
        + "a photo of a Émile cat.,émile,0\n"
        + "\n"
        + '"a ""big"" pug.",pug,1\n',
    )
    assert prompts == Prompts(
        prompts=(
            "a photo of a pug, a type of pet.",
            "a photo of a Émile cat.",
            'a "big" pug.',
        ),
        classidx=(1, 0, 1),
        class_names=("émile", "pug"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + "a cat,cat,0\na dog,dog,1\n",
        (HEADER + "a cat,cat,0\na dog,dog,1\n").replace("\n", "\r\n"),
        HEADER + "a cat,cat,0\na dog,dog,1",
        "classidx,prompt,classname\n0,a cat,cat\n1,a dog,dog\n",
        "prompt, classname, classidx\na cat,cat, 0\na dog,dog,1 \n",
    ],
    ids=["byte-order mark", "CRLF", "no last newline", "column order", "spaces"],
)
def test_harmless_variants_read_the_same(tmp_path, text):
    prompts = read(tmp_path, text)
    assert prompts.prompts == ("a cat", "a dog")
    assert prompts.classidx == (0, 1)
    assert prompts.class_names == ("cat", "dog")


def test_from_labels_equals_its_file(tmp_path):
    expected = Prompts.from_labels(["airplane", "cat"], CIFAR10_TEMPLATE)
    rows = zip(expected.prompts, expected.class_names, expected.classidx, strict=True)
    text = HEADER + "".join(f"{p},{n},{i}\n" for p, n, i in rows)
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no prompts"),
        (HEADER, "holds no prompts"),
        ("a cat,cat,0\n", "line 1: the columns must include"),
        ("prompt,classname\na cat,cat\n", "line 1: the columns must include"),
        (HEADER + "a cat,cat,0\na, dog,dog,1\n", "line 3: 4 fields .*double quotes"),
        (HEADER + "a cat,cat,0\na dog,dog\n", "line 3: 2 fields"),
        (HEADER + "a cat,cat,0\na dog,dog,x\n", "line 3: the classidx 'x'"),
        (HEADER + "a cat,cat,0\na dog,dog,1.0\n", "line 3: the classidx '1.0'"),
        (HEADER + "a cat,cat,0\na dog,dog," + 5000 * "1", "line 3: the classidx '11"),
        (HEADER + "a cat,cat,0\na dog,dog,-1\n", "line 3: the classidx '-1'"),
        (HEADER + "a cat,cat,0\n,dog,1\n", "line 3: the prompt is empty"),
        (HEADER + "a cat,cat,0\na dog, ,1\n", "line 3: the classname is empty"),
        (HEADER + "a cat,cat,0\na dog,dog,\n", "line 3: the classidx is empty"),
        (HEADER + "a cat,cat,0\na dog,dog,0\n", "line 3: class 0 is called 'dog'"),
        (HEADER + "a cat,cat,0\na cat,cat,0\n", "line 3: class 0 has the prompt"),
        (HEADER + "a cat,cat,0\nthe cat,cat,0\n", "at least two"),
        (HEADER + "a cat,cat,1\na dog,dog,2\n", "out of range"),
        (HEADER + 'a cat,cat,0\n"a dog,dog,1\n', "line 3: unexpected end"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    with pytest.raises(DiffjaxError, match=rf"prompts\.csv.*{message}"):
        read(tmp_path, text)


def test_line_numbers_count_blank_and_quoted_lines(tmp_path):
    text = HEADER + '\n"a\ncat",cat,0\na dog,dog,x\n'
    with pytest.raises(DiffjaxError, match="line 5: the classidx 'x'"):
        read(tmp_path, text)


def test_unusual_separators_inside_a_prompt_do_not_end_the_line(tmp_path):
    prompts = read(tmp_path, HEADER + "a\u2028cat,cat,0\na\x0bdog,dog,1\n")
    assert prompts.prompts == ("a\u2028cat", "a\x0bdog")


def test_other_encodings_and_missing_files(tmp_path):
    with pytest.raises(DiffjaxError, match="not UTF-8"):
        read(tmp_path, HEADER + "a café,café,0\na dog,dog,1\n", "latin-1")
    with pytest.raises(DiffjaxError, match=r"no prompts file .*none\.csv"):
        Prompts.read_csv(tmp_path / "none.csv")
    with pytest.raises(DiffjaxError, match="is a folder"):
        Prompts.read_csv(tmp_path)


def test_classes_that_look_the_same_are_kept_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="share a prompt: 'a crane'"):
        prompts = read(tmp_path, HEADER + "a crane,bird,0\na crane,machine,1\n")
    assert prompts.classidx == (0, 1)
    with pytest.warns(UserWarning, match="share a name: 'crane'"):
        read(tmp_path, HEADER + "a crane bird,crane,0\na crane,crane,1\n")


# Writing, and some of the classes


def test_what_is_written_is_read_back(tmp_path):
    prompts = Prompts(
        prompts=('a "big" cat, asleep', "a\u2028dog\nin two lines", " a cat", "émile"),
        classidx=(2, 0, 2, 1),
        class_names=("dog, the", "émile", "cat"),
    )
    path = tmp_path / "prompts.csv"
    prompts.write_csv(path)
    assert Prompts.read_csv(path) == prompts
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8").startswith(HEADER + '"a ""big"" cat, asl')


def test_restricted_keeps_rows_and_renumbers_classes():
    prompts = Prompts(
        prompts=("c1", "a1", "d1", "c2", "b1"),
        classidx=(2, 0, 3, 2, 1),
        class_names=("a", "b", "c", "d"),
    )
    assert prompts.restricted((0, 2)) == Prompts(
        prompts=("c1", "a1", "c2"), classidx=(1, 0, 1), class_names=("a", "c")
    )
    assert prompts.restricted([0, 1, 2, 3]) == prompts


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([1, 0], "ascending"),
        ([0, 0], "ascending, each given once"),
        ([0, 3], r"do not have: 3\. Their 3 classes"),
        ([-1, 0], "do not have: -1"),
        ([1], "at least two"),
        ([], "at least two"),
    ],
)
def test_restricted_refuses(classes, message):
    with pytest.raises(DiffjaxError, match=message):
        Prompts.from_labels(["cat", "dog", "emu"]).restricted(classes)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("cat,dog", ["cat", "dog"]),
        (" cat , dog ", ["cat", "dog"]),
        ('"ship, boat",truck', ["ship, boat", "truck"]),
        ('truck, "ship, boat"', ["truck", "ship, boat"]),
        ('"say ""hi""",x', ['say "hi"', "x"]),
        ('5" pipe,x', ['5" pipe', "x"]),
        ("cat,,dog", ["cat", "", "dog"]),
        ("  ", []),
    ],
)
def test_labels_in_one_text(text, labels):
    assert split_labels(text) == labels


@pytest.mark.parametrize("text", ['"ship, boat', '"a"b,c', "a,b\nc,d"])
def test_labels_that_cannot_be_told_apart(text):
    with pytest.raises(DiffjaxError, match=r"cannot be told apart .*double quotes"):
        split_labels(text)


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (np.array(["cat", "dog"]), ("cat", "dog")),
        ([np.str_("cat"), "dog"], ("cat", "dog")),
        ([3, 12], ("3", "12")),
        (np.array([3, 12]), ("3", "12")),
        (iter(["cat", "dog"]), ("cat", "dog")),
    ],
)
def test_labels_of_other_types(labels, texts):
    checked = check_labels(labels)
    assert checked == texts and {type(label) for label in checked} == {str}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.5, 2.5], r"text or a whole number, not 1\.5 \(float\)"),
        ([True, False], r"not True \(bool\)"),
        ([b"cat", b"dog"], r"\(bytes\)"),
        ([None, "dog"], "NoneType"),
        ([["cat"], "dog"], r"\(list\)"),
        ({"cat", "dog"}, "must be a list"),
        ({"cat": 0, "dog": 1}, "must be a list"),
        (b"cat,dog", "must be a list"),
        ([1, "1"], "more than once"),
    ],
)
def test_labels_of_types_that_are_refused(labels, message):
    with pytest.raises(DiffjaxError, match=message):
        check_labels(labels)


def test_further_columns_are_not_read(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(",prompt,note,classname,classidx\n0,a,x,A,0\n1,b,,B,1\n")
    assert Prompts.read_csv(path).prompts == ("a", "b")
    path.write_text("prompt;classname;classidx\na;A;0\nb;B;1\n")
    with pytest.raises(DiffjaxError, match="Commas must separate"):
        Prompts.read_csv(path)
