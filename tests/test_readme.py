import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_the_snippet_runs_anywhere_and_says_what_comes(tmp_path, monkeypatch):
    snippet, *_ = re.findall(
        r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    stated = [float(score) for score in re.findall(r"'score': ([0-9.]+)", snippet)]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)
    scores = [entry["score"] for entry in names["record"].scores()]
    assert [round(score, 3) for score in scores] == stated
    assert sum(scores) == pytest.approx(1)
    label, evaluations = re.search(r"\('(\w+)', (\d+)\)", snippet).groups()
    assert names["record"].label == label
    assert names["record"].evaluations == int(evaluations)
    assert [record.label for record in names["records"]] == ["ship", "frog"]


def test_the_example_of_a_denoiser_runs(capsys):
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    [label] = re.findall(r"\.label\)\s+# (\w+)", example)
    assert capsys.readouterr().out.strip() == label
