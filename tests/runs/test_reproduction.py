"""The paper's tables and figures, the commands that measure them, and runs that did."""

import html.parser
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import assert_only_refused, invoke, parse
from saved_runs import write_run

from diffjax.checkpoints.catalog import MODELS
from diffjax.checkpoints.networks import network_config
from diffjax.choices import FILTERS
from diffjax.cli.reproduce import NAMES
from diffjax.data.presets import ASSETS, PRESETS
from diffjax.files import json_text
from diffjax.models.config import differing
from diffjax.runs.audit import Limits, counted
from diffjax.runs.folder import read_run
from diffjax.runs.header import read_header
from diffjax.runs.matching import JUDGES, NEAR, SAME, SIZES, agreement
from diffjax.runs.paper import SETS, TABLE_1, TABLE_3, TABLE_4, TFLOP
from diffjax.runs.paper_figures import EXHIBITS
from diffjax.runs.reproduction import cost
from diffjax.strategies import parse_strategy, strategy_to_dict

ROOT = Path(__file__).parents[2]
SAVED = ROOT / "notebooks" / "saved"
PETS = list(SETS).index("pets")
DIFFUSION = TABLE_1.rows[2]


def printed():
    for exhibit in EXHIBITS.values():
        yield from exhibit.commands + exhibit.small
        for row in exhibit.rows:
            yield from row.commands


def measures():
    for exhibit in EXHIBITS.values():
        rows = (m for row in exhibit.rows for m in row.measures)
        yield from filter(None, (*rows, exhibit.takes))


def commands():
    """As a shell would give them: in a loop, one for each turn."""
    turns = [""]
    for words in map(shlex.split, printed()):
        if words[0] == "for":
            assert words[1:3] == ["set", "in"] and words[-1] == "do"
            turns = [word.rstrip(";") for word in words[3:-1]]
            assert set(turns) <= set(PRESETS)
        elif words == ["done"]:
            turns = [""]
        else:
            yield from ([w.replace("$set", turn) for w in words] for turn in turns)


def test_every_command_is_understood():
    assert len(list(commands())) > 60
    for first, *arguments in commands():
        if first == "python":
            assert (ROOT / arguments[0]).is_file()
        else:
            assert first == "diffjax"
            parse(arguments)


def test_exhibits_are_whole():
    assert tuple(EXHIBITS) == NAMES
    for exhibit in EXHIBITS.values():
        rows = exhibit.rows
        assert exhibit.commands or all(r.commands or not r.measures for r in rows)
        for row in rows:
            assert len(row.paper) == len(exhibit.columns)
            assert len(row.measures) in (0, len(row.paper))
    numbers = [n for e in EXHIBITS.values() for row in e.rows for n in row.paper]
    assert all(n is None or 0 <= n <= 400 for n in numbers)
    # the page of the documentation has rows of Table 1, too
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for row in TABLE_1.rows[2:]:
        assert " | ".join(map(str, row.paper)) in page


def test_costs_are_those_of_the_authors_program():
    assert [cost(each).evaluations for each in DIFFUSION.measures] == [
        *(5_570, 2_750, 5_550, 2_050, 5_590, 3_000, 124_500, 14_400)
    ]
    assert [
        cost(each) and cost(each).evaluations for each in TABLE_4.rows[-1].measures
    ] == [*(250_000, 250_000, 50_000, None)]
    assert cost(TABLE_3.rows[-1].measures[0]).evaluations == 6_000
    assert cost(TABLE_1.rows[3].measures[0]) is None  # CLIP sees an image once


@pytest.mark.slow
def test_an_evaluation_takes_what_is_said():
    from shared_flops import CLASSES, flops

    for name, resolution in (("sd-2-base", None), ("dit-256", None), ("dit-256", 512)):
        _, found = flops(name, resolution, CLASSES)
        told = TFLOP["dit-512" if resolution else name]
        assert told == pytest.approx(found / CLASSES / 1e12, abs=0.0001)


def like_the_paper(measure):
    """The header of a run that has measured a number."""
    preset, model = PRESETS[measure.data], MODELS[measure.model]
    text = preset.paper if measure.strategy == "paper" else measure.strategy
    return {
        "experiment": {
            "dataset": preset.dataset,
            "split": preset.split,
            "prompts": preset.prompts,
            "strategy": strategy_to_dict(parse_strategy(text)),
            "loss": measure.loss or preset.loss,
            "resolution": model.resolution,
            "template": [],
        },
        "data": {"split": preset.split},
        "model": {
            "model": model.name,
            "name": model.name,
            "kind": model.kind,
            "elsewhere": {},
            "configs": {"unet": SIZES[model.name]},
        },
        "classes": list(range(37)),
    }


def changed(header, part, **others):
    return header | {part: header[part] | others}


def test_which_runs_count():
    measure = DIFFUSION.measures[PETS]
    right = like_the_paper(measure)
    assert agreement(measure, right) == SAME
    hub = MODELS["sd-2-base"].hub_id
    assert agreement(measure, changed(right, "model", model=hub, name=hub)) == SAME
    assert agreement(measure, changed(right, "experiment", limit=200)) == SAME
    racing = strategy_to_dict(parse_strategy("racing:n_samples=250"))
    assert agreement(measure, changed(right, "experiment", strategy=racing)) == NEAR
    assert agreement(measure, changed(right, "experiment", loss="l2")) == NEAR
    tiny = read_header(SAVED / "tiny-cifar10")["model"]
    for part, others in [
        ("experiment", {"dataset": "cifar10"}),
        ("experiment", {"split": "train"}),
        ("experiment", {"prompts": None}),
        ("experiment", {"template": ["a {}"]}),
        ("experiment", {"corrupt": "blur:1"}),
        ("experiment", {"prefilter": {"name": "clip"}}),
        ("experiment", {"shortlist": {"k": 5}}),
        ("experiment", {"samples": {"learned_on": {}}}),
        ("experiment", {"derived_from": "another"}),
        ("experiment", {"resolution": 256}),
        ("experiment", {"task": "winoground"}),
        ("experiment", {"trained": {"head": "resnet"}}),
        ("model", tiny),
        ("model", {"model": "./sd-2-base"}),
        ("model", {"model": "sd-1.5"}),
        ("model", {"kind": "class"}),
        ("model", {"elsewhere": {"unet": "./mine"}}),
        ("model", {"lora": [{"file": "mine"}]}),
        ("model", {"configs": {"unet": {"sample_size": 64}}}),  # as SD 1.5's
        ("model", {"configs": {"transformer": SIZES["dit-512"]}}),
        ("model", {"configs": {"unet": None}}),
        ("model", {"configs": []}),
    ]:
        assert agreement(measure, changed(right, part, **others)) is None, others
    assert agreement(measure, right | {"classes": list(range(36))}) is None
    # of other rows and columns
    for other in measures():
        assert other == measure or agreement(other, right) in (None, NEAR)
        if other.data != "pets":
            assert agreement(other, right) is None


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_that_headers_tell(name, tmp_path):
    part = "unet" if name == "sd-2-base" else "transformer"
    file = name if name == "sd-2-base" else "dit-256"
    config = json.loads((ASSETS / "configs" / f"{file}.json").read_text())
    config |= {"sample_size": 64} if name == "dit-512" else {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = json_text(differing(network_config(tmp_path, part)))
    assert json.loads(told) == SIZES[name]


def test_models_of_the_package_are_no_model_of_the_paper():
    headers = [read_header(path.parent) for path in SAVED.glob("*/run.json")]
    assert len(headers) >= 5
    for measure in measures():
        assert [agreement(measure, each) for each in headers] == [None] * len(headers)
    told = json.loads(invoke("reproduce", "--runs", SAVED, "--json").stdout)
    small = {found["run"]: (name, found) for e in told for name, found in e["small"]}
    for run, name in (("scenes", "tiny, scene-pairs"), ("study", "tiny, cifar10")):
        assert small[str(SAVED / run)][0] == name
    assert small[str(SAVED / "scenes")][1]["of"] == 240
    for run in ("tiny-cifar10", "study", "dit-fashion", "resnet-cifar10"):
        summary = json.loads((SAVED / run / "summary.json").read_text())
        assert small[str(SAVED / run)][1]["value"] == summary["metrics"]["acc1"]


@pytest.fixture
def pets(tmp_path):
    """Writes a finished run as Table 1's, of 37 images of which 30 are right."""

    def write(name, **others):
        header = like_the_paper(DIFFUSION.measures[PETS])
        del header["classes"]
        errors = np.ones((37, 37, 1), np.float32)
        errors[np.arange(37), np.arange(37), 0] = [0.5] * 30 + [1.5] * 7
        header = changed(header, "experiment", **others)
        path = tmp_path / "runs" / name
        return write_run(path, errors, np.arange(37), header=header)

    return write


def test_a_run_stands_beside_the_paper(pets, tmp_path):
    def cells():
        found = invoke("reproduce", "table1", "--runs", tmp_path, "--json")
        return json.loads(found.stdout)[0]["lines"][2]["cells"]

    near = pets("near", loss="l2")
    assert invoke("reproduce", "fig3", "--runs", tmp_path).stderr == ""
    cell = cells()[PETS]
    assert cell["here"] is None and cell["others"][0]["how"].endswith(", l2")
    run = pets("same")
    here = cells()[PETS]["here"]
    accuracy = read_run(run.path).summary["metrics"]["mean_per_class_recall"]
    assert here["value"] == accuracy == pytest.approx(30 / 37)
    assert here["run"] == str(run.path) and here["of"] == 37
    assert here["low"] < accuracy < here["high"]
    assert [each["here"] for each in cells()].count(None) == 7
    shown = invoke("reproduce", "table1", "--runs", tmp_path)
    assert "81.1" in shown.stdout and shown.stderr == ""
    for each in (run, near):
        assert str(each.path) in shown.stdout
    # neither what is not finished nor what is damaged
    header = changed(run.header, "data", n=40)
    (run.path / "run.json").write_text(json.dumps(header))
    (near.path / "prompts.csv").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{")
    cell = cells()[PETS]
    assert cell["here"] is None and cell["others"] == []
    told = invoke("reproduce", "table1", "--runs", tmp_path).stderr
    assert str(near.path) in told and str(tmp_path / "other") in told


def test_heads_of_an_audit_are_known_by_their_numbers():
    from diffjax.checkpoints.heads import DETECTOR, load_aesthetic, load_detector
    from diffjax.data.sources import digest
    from diffjax.evaluation.audit import _parts

    assert digest(_parts(load_aesthetic("mlp"))) == JUDGES["aesthetic"]
    published = ROOT.parent / "shared" / "data" / "aesthetic" / DETECTOR
    if not published.is_file():
        pytest.skip(f"the published detector is not at {published}")
    assert digest(_parts(load_detector(published))) == JUDGES["unsafe"]


def test_audits_stand_beside_table_2(tmp_path):
    rows = [
        {"width": 600, "height": 520, "aesthetic": 5.0, "unsafe": 0.01, "error": None},
        {"width": 600, "height": 500, "aesthetic": 5.0, "unsafe": 0.01, "error": None},
        {"width": 600, "height": 500, "aesthetic": 4.0, "unsafe": 0.01, "error": None},
        {"width": 600, "height": 500, "aesthetic": 4.0, "unsafe": 0.20, "error": None},
    ]

    usual = Limits()

    def cells(limits=usual, data="oxford_iiit_pet", clip="clip:ViT-L-14", **models):
        header = {
            "format": 1,
            "data": {"name": data, "split": "test"},
            "models": {"clip": "0", **JUDGES, **models},
            "names": {"clip": clip},
            "result": counted(rows, FILTERS, limits),
        }
        (tmp_path / "audit.json").write_text(json.dumps(header))
        told = json.loads(invoke("reproduce", "--runs", tmp_path, "--json").stdout)
        (table,) = (e for e in told if e["exhibit"]["name"] == "table2")
        found = {line["row"]["title"]: line["cells"] for line in table["lines"]}
        assert not any(c["here"] for c in found["Food"])
        return [c["here"] and c["here"]["value"] for c in found["Pets"]]

    assert cells() == [0.25, 0.5, 0.75, 0.5, 0.25]
    assert cells(aesthetic="another") == [0.25, None, 0.75, None, None]
    assert cells(clip="clip:RN50") == [0.25, None, None, None, None]
    assert cells(Limits(size=256)) == [None, 0.5, 0.75, 0.5, None]
    assert cells(data="cifar10") == [None] * 5
    (tmp_path / "audit.json").write_text('{"data": 1, "result": []}')
    found = invoke("reproduce", "table2", "--runs", tmp_path)
    assert found.exit_code == 0 and "audit.json is damaged" in found.stderr


def test_timesteps_stand_beside_figure_3(tmp_path):
    (row,) = EXHIBITS["fig3"].rows
    header = like_the_paper(row.measures[0])
    del header["classes"]
    errors = np.ones((37, 37, 4), np.float32)
    for t, right in enumerate((10, 20, 30, 37)):  # of 37, at each timestep
        errors[np.arange(37), np.arange(37), t] = [0.5] * right + [1.5] * (37 - right)
    run = write_run(tmp_path / "run", errors, np.arange(37), header=header)
    told = json.loads(invoke("reproduce", "fig3", "--runs", tmp_path, "--json").stdout)
    here = [cell["here"] for cell in told[0]["lines"][0]["cells"]]
    assert [each["value"] for each in here] == pytest.approx([20 / 37, 1, 1])
    assert here[0]["run"] == f"{run.path} (t = 1)" and here[1]["of"] == 37
    assert told[0]["own"]["here"]["run"] == str(run.path)
    assert told[0]["own"]["cost"]["evaluations"] == 3_700


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.fetched, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        if tag in ("img", "script", "link", "iframe"):
            self.fetched.append(found.get("src") or found.get("href"))

    def handle_data(self, data):
        self.text += data


def test_the_page_has_it_all_and_fetches_nothing(pets, tmp_path):
    file = tmp_path / "paper.html"
    run = pets("same")
    shown = invoke("reproduce", "--runs", tmp_path, "--html", file)
    assert shown.exit_code == 0, shown.output
    page = Page(file.read_text(encoding="utf-8"))
    assert set(EXHIBITS) <= set(page.ids)
    assert all(source.startswith("data:") for source in page.fetched)
    assert len(page.fetched) == 1
    for line in printed():
        assert line in page.text
    assert "�" not in page.text and "`" not in page.text
    assert "81.1" in page.text and str(run.path) in page.text
    bad = invoke("reproduce", "--html", tmp_path / "none" / "x.html")
    assert_only_refused(bad, "no folder")
    assert_only_refused(invoke("reproduce", "--runs", tmp_path / "none"), "no folder")
    assert invoke("reproduce", "table9").exit_code == 2
