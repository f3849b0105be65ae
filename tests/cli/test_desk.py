"""What `diffjax app` answers, without its page: what the commands that it shows do."""

import html
import json
import re
import shlex
import shutil
import socket
import threading

import pytest
from commands import assert_refused, invoke, json_lines
from PIL import Image

from diffjax.classify.settings import Settings
from diffjax.cli.app import app, given
from diffjax.cli.commands import group
from diffjax.cli.desk import MAX_WORD, Asked, Desk, class_lists
from diffjax.cli.page import check_address
from diffjax.cli.telling import NAME
from diffjax.data.prompts import DEFAULT_TEMPLATE, join_labels, split_labels
from diffjax.errors import DiffjaxError

STRATEGY = "staged:to_keep=2,1:n_samples=2,4:order=nested"
LABELS = "cat\n dog, a\n"
SOON = 30.0  # seconds, which only a failing test waits

pytestmark = pytest.mark.usefixtures("no_compile_cache")


def a_desk(folder, **more):
    models = (str(folder / "sd"), str(folder / "dit"))
    words = {"cells": ["--cells", "2"], "prompt_cache": ["--prompt-cache", "kept"]}
    options = {"cells": 2}
    return Desk(models, options, words, **{"strategy": STRATEGY, "pace": 0.0} | more)


def ask(folder, **more):
    image = str(folder / "noise.png")
    known = {"image": image, "name": image, "labels": LABELS, "strategy": STRATEGY}
    return Asked(**known | {"model": str(folder / "sd")} | more)


def text(piece):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", piece)).split())


ODD = 'it\'s -a "photo".png'
ODD_LABELS = 'cat, "dog, a"\nthe <b>cat</b>'


def answered(folder, tmp_path, monkeypatch, **more):
    """What is shown last, with the commands as words, in a folder with the image."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "noise.png", tmp_path / ODD)
    asked = ask(folder, name=ODD, labels=ODD_LABELS, template="a {}", **more)
    *_, end = a_desk(folder).answer(asked)
    return end, [shlex.split(line) for line in end.commands.splitlines()]


def test_the_command_does_the_same(folder, tmp_path, monkeypatch):
    end, [words] = answered(folder, tmp_path, monkeypatch, evidence=False)
    assert words[:3] == ["diffjax", "classify", ODD]
    assert split_labels(words[4]) == ["cat", "dog, a", "the <b>cat</b>"]
    result = invoke(*words[1:], "--json")
    assert result.exit_code == 0, result.output
    [record] = json_lines(result.stdout)
    told = f"{record['label']} wins evaluations {record['evaluations']} "
    assert text(end.race).startswith(told)
    rows = re.findall(r"<tr class.*?</tr>", end.table)
    for row, entry in zip(rows, record["scores"], strict=True):
        assert text(row).startswith(entry["label"])
        assert f"{entry['score']:.3f}" in row


@pytest.mark.slow  # maps of a hundred samples
def test_the_command_of_the_evidence_does_the_same(folder, tmp_path, monkeypatch):
    end, [classify, explain] = answered(folder, tmp_path, monkeypatch)
    # what only one of them knows is told to no other
    assert "--cells" in classify and "--cells" not in explain
    result = invoke(*explain[1:], "--json", "--out", "map.png")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert text(end.race).startswith(f"{found['labels'][0]} wins ")
    assert f"{found['difference'] / 1e-3:+.3g} in all" in end.evidence


def test_a_model_of_classes_takes_all_its_own(folder):
    asked = ask(folder, model=str(folder / "dit"), labels=" \n", evidence=False)
    desk = a_desk(folder)
    assert [desk.takes_prompts(model) for model in desk.models] == [True, False]
    *_, end = desk.answer(asked)
    assert " wins " in text(end.race) and end.evidence == ""
    [line] = end.commands.splitlines()
    assert "--labels" not in line and "--template" not in line
    result = invoke(*shlex.split(line)[1:], "--json")
    [record] = json_lines(result.stdout)
    assert f"evaluations {record['evaluations']} " in text(end.race)


def test_what_cannot_be_answered_is_said(folder, tmp_path):
    words = tmp_path / "text.png"
    words.write_text("no picture")
    many = ",".join(f"class {i}" for i in range(10_000))
    for changed, part in (
        ({"image": None}, "Drop an image"),
        ({"image": str(words), "name": "mine.png"}, "mine.png"),
        ({"labels": ""}, "needs labels"),
        ({"labels": "cat"}, "Only one label"),
        ({"labels": "cat, dog, cat"}, "more than once: 'cat'"),
        ({"labels": "cat,,dog"}, "A label is empty"),
        ({"labels": 'cat, "dog'}, "cannot be told apart"),
        ({"labels": many}, "10,000 labels are more than the 1,000"),
        ({"model": "/etc"}, "There is no model '/etc'"),
        ({"strategy": "exhaustive:n_samples=999999"}, "There is no strategy"),
        ({"template": "{} {}"}, "must contain {} exactly once"),
    ):
        *_, end = a_desk(folder).answer(ask(folder, **changed))
        assert part in text(end.race), changed
        assert 'role="alert"' in end.race and end.commands == ""
        assert str(tmp_path) not in end.race  # which is no visitor's business


def test_large_images_are_refused_as_the_command_refuses_them(folder):
    *_, end = a_desk(folder, max_pixels=1000).answer(ask(folder))
    result = invoke("classify", folder / "noise.png", "--max-pixels", "1000")
    assert "pixels" in text(end.race)
    assert text(end.race) in result.stderr


def test_what_the_command_notes_is_noted(folder, tmp_path):
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 255)]
    moving = tmp_path / "moving.gif"
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    asked = ask(folder, image=str(moving), name="mine.gif", evidence=False)
    *_, end = a_desk(folder).answer(asked)
    assert "'mine.gif' has several frames; only frame 1 is read." in text(end.race)
    assert " wins " in text(end.race)


def test_labels_that_no_command_line_holds(folder):
    desk = a_desk(folder, max_labels=100_000)
    names = [f"label {i} of many" for i in range(MAX_WORD // 16)]
    line = desk._commands(ask(folder), names, DEFAULT_TEMPLATE, [], Settings())
    assert line.startswith("# ") and "--prompts" in line


def test_who_leaves_ends_the_computation(folder):
    strategy = "exhaustive:n_samples=900"
    answers = a_desk(folder, strategy=strategy).answer(ask(folder, strategy=strategy))
    for shown in answers:
        if "evaluations" in text(shown.race) and "evaluations 0 " not in text(
            shown.race
        ):
            break
    answers.close()
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(SOON)
            assert not thread.is_alive()
    n = int(re.search(r"evaluations ([\d,]+)", text(shown.race))[1].replace(",", ""))
    assert n < 3 * 900


@pytest.mark.parametrize(
    "labels",
    [["a", "b"], ['say "a"', "b,c", "d"], ["it's", "ü", "--json"], ["a\tb", "'"]],
)
def test_labels_come_back_from_their_text(labels):
    assert split_labels(join_labels(labels)) == labels


def test_class_lists_have_the_prompts_of_the_package():
    lists = class_lists()
    assert lists["cifar10"][1] == "a blurry photo of a {}."
    assert len(lists["pets"][0]) == 37
    for names, template in lists.values():
        assert len(set(names)) == len(names) and template.count("{}") == 1
        assert split_labels(join_labels(names)) == names


def test_what_the_page_was_told_its_commands_are_told(tmp_path):
    told = [*("--loss", "l1"), "--offline", *("--lora", "a", "--lora", "b:0.5")]
    told += ["--shortlist", "k=5", "--temperature", "0.01", "--port", "80"]
    context = app.make_context("app", told)
    words = given(context, set(context.params) - {"port"})
    assert words["loss"] == ["--loss", "l1"]
    assert words["local_files_only"] == ["--offline"]
    assert words["lora"] == ["--lora", "a", "--lora", "b:0.5"]
    again = [word for each in words.values() for word in each]
    command = group.commands["classify"]
    parsed = command.make_context("classify", ["a.png", *again]).params
    for name in ("loss", "lora", "shortlist", "temperature", "local_files_only"):
        assert parsed[name] == context.params[name]
    assert "port" not in words and "seed" not in words


def test_where_nothing_can_be_served_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DiffjaxError, match=f"127.0.0.1 port {port}.*--port"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)
    check_address("localhost", None)
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(DiffjaxError, match=f"{host} .*--host"):
            check_address(host, None)


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert_refused(invoke("app"), 'pip install "diffjax[app]"')
