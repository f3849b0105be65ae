"""The notebooks run from top to bottom, and are small."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {"results": 4, "tour": 3}
MOST_BYTES = 500_000
MOST_SAVED = 8_000_000  # of the runs that results.ipynb reads


def test_there_are_notebooks_and_they_are_small():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)
    assert all(path.stat().st_size < MOST_BYTES for path in NOTEBOOKS)
    saved = [path.stat().st_size for path in (FOLDER / "saved").rglob("*")]
    assert 0 < sum(saved) < MOST_SAVED


@pytest.mark.parametrize(
    "path",
    [
        # a kernel of its own, and compilation
        pytest.param(
            path, id=path.stem, marks=[pytest.mark.slow] * (path.stem == "tour")
        )
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs(path):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": FOLDER}}
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == PICTURES[path.stem]
