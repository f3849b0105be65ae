import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from colours import contrast
from report_runs import NASTY, write_runs
from saved_runs import write_run

from diffjax.cli.commands import group
from diffjax.report import tables
from diffjax.report.charts import parts
from diffjax.report.compare import read_report
from diffjax.report.page import LONGEST, STYLE, environment, page
from diffjax.report.words import headline

VOID = {"meta", "img", "br", "link", "wbr", "input", "hr"}


class Reader(HTMLParser):
    """Elements with their text, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        inside = tuple(element["tag"] for element in self.open)
        element = {"tag": tag, "text": "", "inside": inside, **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def report(paths):
    return read_report(list(paths.values()))


@pytest.fixture(scope="module")
def text(paths, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    arguments = ["report", *map(str, paths.values()), "--html", str(path)]
    arguments.append("--allow-partial")
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    assert str(path) in result.stderr.replace("\n", "")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def test_the_page_is_one_file_without_scripts(text, read):
    assert text.startswith("<!doctype html>")
    assert not read.all("script", "link", "iframe", "object", "base", "form")
    assert all(image["src"].startswith("data:image/") for image in read.all("img"))
    assert all(a["href"].startswith("#") for a in read.all("a"))
    assert not [key for e in read.elements for key in e if key.startswith("on")]
    (style,) = read.all("style")
    assert "url(" not in style["text"] and "@import" not in style["text"]
    (policy,) = [e for e in read.all("meta") if "http-equiv" in e]
    assert policy["content"].startswith("default-src 'none'")


def test_headings_and_landmarks(read, report):
    assert read.all("html")[0]["lang"] == "en"
    levels = [int(e["tag"][1]) for e in read.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert len(read.all("main")) == len(read.all("nav")) == len(read.all("header")) == 1
    assert [e["text"] for e in read.all("h2")] == [g.title for g in report.groups]
    titles = Counter(e["text"] for e in read.all("h3"))
    assert all(titles[run.name] == 1 for run in report.runs)
    first = read.all("a")[0]
    assert first["class"] == "skip" and first["href"] == "#content"


def test_links_lead_somewhere(read):
    names = [element["id"] for element in read.elements if "id" in element]
    assert len(names) == len(set(names))
    assert {a["href"][1:] for a in read.all("a")} <= set(names)
    labels = {e["aria-labelledby"] for e in read.elements if "aria-labelledby" in e}
    assert labels <= set(names)


def test_pictures_say_what_they_show(read, report):
    images = read.all("img")
    assert all(image["alt"].strip() for image in images)
    assert all("figure" in image["inside"] for image in images)
    alts = [image["alt"] for image in images if "svg" in image["src"]]
    run = report.runs[0]
    accuracy = tables.percent(run.row["acc1"])
    assert any(a.startswith("Bar chart") and f"whole: {accuracy}" in a for a in alts)
    assert len(read.all("figcaption")) == len(read.all("figure"))
    # the numbers of each chart, on demand
    assert len(read.all("summary")) >= len(alts)


def test_tables_have_captions_and_heads(read):
    tables = read.all("table")
    assert tables and len(tables) == len(read.all("caption"))
    assert all(th["scope"] in ("col", "row") for th in read.all("th"))
    scrolling = [e for e in read.all("div") if e.get("class") == "scroll"]
    assert all(box["tabindex"] == "0" and box["role"] == "group" for box in scrolling)


def test_numbers_are_those_of_the_metrics(read, report):
    cells = [element["text"] for element in read.all("td")]
    for run in report.runs:
        for metric in ("acc1", "acc5", "mean_per_class_recall"):
            rate = run.rate(metric)
            expected = (
                f"{100 * rate.value:.1f} ({100 * rate.low:.1f}–{100 * rate.high:.1f})"
            )
            assert expected in cells
        assert f"{run.row['ece']:.3f}" in cells
    count = max(n for *_, n in report.runs[0].confusions.pairs)
    assert str(count) in cells


def test_names_are_text(text, read):
    assert "<script" not in text.lower()
    mistakes = [e for e in read.all("span") if e.get("class") == "id"]
    assert any(NASTY[0] in element["text"] for element in mistakes)
    assert any(NASTY[1] in element["text"] for element in read.all("th"))
    longest = max(len(word) for e in read.all("td", "th") for word in e["text"].split())
    assert longest <= LONGEST


def test_what_is_missing_is_said_with_its_remedy(read):
    said = " ".join(element["text"] for element in read.all("p", "figcaption"))
    assert "diffjax evaluate --save-errors" in said
    assert "Pictures are missing where the run holds none" in said
    assert "diffjax calibrate" in said
    assert "different data" in said
    items = " ".join(element["text"] for element in read.all("li"))
    assert "part is in progress" in items


def test_text_can_be_read_in_both_schemes():
    style = STYLE.read_text(encoding="utf-8")
    for part in style.split("@media")[:2]:
        found = dict(re.findall(r"--(\w+): #(\w{6})", part))
        colours = {
            name: np.frombuffer(bytes.fromhex(value), np.uint8) / 255
            for name, value in found.items()
        }
        for paper in ("paper", "tint"):
            for ink in ("ink", "muted", "link"):
                assert contrast(colours[ink], colours[paper]) >= 4.5


def test_a_thousand_classes_make_a_small_page(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 200)
    errors = rng.normal(0.2, 1e-3, (200, 1000, 2)).astype(np.float32)
    errors[np.arange(200), labels] -= 2e-3
    write_run(tmp_path / "many", errors, labels, n_names=1000, save_errors=False)
    text = page(read_report([tmp_path / "many"]))
    assert len(text) < 300_000
    assert "12 classes with the most frequent mistakes" in text


def test_names_are_broken_between_their_parts_alone():
    assert parts("fashion_mnist-racing") == ["fashion_", "mnist-", "racing"]
    assert parts("racing:n_samples=100") == ["racing:", "n_samples=100"]
    assert parts("runs/v1.5/sd-2-base") == [*("runs/", "v1.5/", "sd-", "2-", "base")]
    for number in ("-3.2", "1e-05", "2026-11-26", "59.7–72.7", "1,000", "0.5"):
        assert parts(number) == [number]


def test_a_tie_is_not_crowned(paths, report):
    tie, other = map(headline, report.groups)
    assert "not distinguishable on" in tie and "exact McNemar test" in tie
    assert "most accurate" not in tie and "most accurate" not in other
    assert other.startswith("other classifies")


def test_a_winner_is_told_with_its_test(tmp_path):
    n, labels = 60, np.arange(60) % 3
    for name, right in (("good", 50), ("poor", 20)):
        errors = np.full((n, 3, 2), 0.2, np.float32)
        errors[np.arange(n), np.where(np.arange(n) < right, labels, labels - 1)] = 0.1
        write_run(tmp_path / name, errors, labels, save_errors=False)
    (group,) = read_report([tmp_path / "poor", tmp_path / "good"]).groups
    said = headline(group)
    assert "Of 2 runs, good (83.3\N{NO-BREAK SPACE}%) is the most accurate" in said
    space = "\N{NO-BREAK SPACE}"
    test = f"(exact McNemar test, p{space}<{space}0.001)"
    assert f"on 60 shared images {test}" in said


def test_one_run_has_no_chart_of_one_point(tmp_path):
    labels = np.arange(4)
    errors = np.full((4, 4, 2), 0.2, np.float32)
    errors[np.arange(4), labels] = 0.1
    write_run(tmp_path / "one", errors, labels, save_errors=False)
    read = Reader(page(read_report([tmp_path / "one"])))
    alts = " ".join(image["alt"] for image in read.all("img"))
    assert "Bar chart" not in alts and "against evaluations" not in alts
    write_run(tmp_path / "saved", errors, labels)
    read = Reader(page(read_report([tmp_path / "saved"])))
    alts = " ".join(image["alt"] for image in read.all("img"))
    assert "Bar chart" not in alts and "against evaluations" in alts


def test_one_sample_makes_tables_and_no_charts_of_one_point(tmp_path):
    errors = np.full((4, 4, 1), 0.2, np.float32)
    errors[np.arange(4), np.arange(4)] = 0.1
    write_run(tmp_path / "one", errors, np.arange(4))
    read = Reader(page(read_report([tmp_path / "one"])))
    alts = [image["alt"] for image in read.all("img") if "svg" in image["src"]]
    assert [alt.strip().split(".")[0] for alt in alts] == ["Confusion matrix"]
    captions = " ".join(each["text"] for each in read.all("caption"))
    assert "Scores at τ" in captions and "By how much the label" in captions


def test_a_run_without_mistakes_says_so(tmp_path):
    errors = np.full((4, 3, 2), 0.2, np.float32)
    labels = np.array([0, 1, 2, 0])
    errors[np.arange(4), labels] = 0.1
    write_run(tmp_path / "perfect", errors, labels, save_errors=False)
    text = page(read_report([tmp_path / "perfect"]))
    assert "There is no mistake." in text


def test_pieces_escape():
    pieces = environment().get_template("pieces.html.j2")
    table = pieces.make_module({"ids": map(str, range(9))}).table
    got = table("<i>", ("a&b", "n"), [("<b>", "1:2")])
    assert "&lt;i&gt;" in got and "a&amp;b" in got and "<b>" not in got
    assert '<td class="n">1:2</td>' in got  # a number
    named = table("names", ("run", "n"), [("a_b-c/d", "66.5 (59.7–72.7)")])
    assert ">a_<wbr>b-<wbr>c/<wbr>d</th>" in named
    assert ">66.5 <span>(59.7–72.7)</span></td>" in named
    assert table("empty", ("a", "b"), []).count("<th") == 3  # thead too


def test_every_template_escapes():
    made = environment()
    names = [name for name in made.list_templates() if name.endswith(".j2")]
    assert set(names) >= {"page.html.j2", "run.html.j2", "pieces.html.j2"}
    for name in names:
        template = made.get_template(name)
        assert template.new_context({}).eval_ctx.autoescape is True
        source, *_ = made.loader.get_source(made, name)
        assert not re.search(r"\|\s*safe|autoescape|Markup|xmlattr|tojson", source), (
            name
        )
    got = made.from_string("<p title='{{ x }}'>{{ x }}").render(x="<b>'\"\x00")
    assert got == "<p title='&lt;b&gt;&#39;&#34;�'>&lt;b&gt;&#39;&#34;�"
