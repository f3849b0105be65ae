"""The house plan: imports point one way, and light modules stay light."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffjax

ROOT = Path(diffjax.__file__).parent
PAGE = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")

# room: the rooms of diffjax that its modules may import
LOW = {"choices", "errors", "files"}
MAY_IMPORT = {
    "choices": set(),
    "errors": set(),
    "files": {"errors"},
    "tracing": set(),
    "schedules": {"errors"},
    "strategies": {"choices", "errors"},
    "data": LOW,
    "models": {"errors", "schedules", "tracing"},
    "checkpoints": LOW | {"data", "schedules", "models"},
    "scoring": LOW | {"data", "models", "schedules", "tracing"},
    "classify": LOW
    | {"checkpoints", "data", "models", "schedules", "scoring", "strategies"}
    | {"tracing"},
    "baselines": LOW | {"checkpoints", "data", "models", "scoring", "tracing"},
    "training": LOW
    | {"baselines", "checkpoints", "data", "models", "schedules", "scoring", "tracing"},
    "runs": LOW | {"checkpoints", "classify", "data", "strategies"},
    "report": LOW | {"__version__", "classify", "data", "runs", "strategies"},
    "evaluation": LOW
    | {"__version__", "baselines", "checkpoints", "classify", "data", "models"}
    | {"runs", "schedules", "scoring", "strategies", "tracing"},
    "cli": LOW
    | {"__version__", "baselines", "checkpoints", "classify", "data", "evaluation"}
    | {"report", "runs", "strategies", "training"},
    "__init__": {"errors", "checkpoints", "classify", "data", "evaluation"}
    | {"runs", "schedules", "strategies"},
    "__main__": {"cli"},
}
MOST_ROOMS = 20
# what is imported without JAX: the host's side, whatever it may import
NO_JAX = ("choices", "errors", "files", "strategies", "data", "runs", "report")
NO_JAX_EITHER = (
    "diffjax.cli.commands",  # and with it all commands
    "diffjax.classify.progress",
    "diffjax.classify.record",
    "diffjax.classify.settings",
    "diffjax.classify.temperature",
)
HEAVY = ("jax", "flax", "optax", "torch", "tensorflow", "tensorflow_datasets")


def modules(place):
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imported(path):
    """Every module that is imported anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            if node.module == "diffjax":
                yield from (f"diffjax.{alias.name}" for alias in node.names)


def test_every_room_has_its_rule():
    rooms = {path.stem for path in ROOT.glob("*.py")}
    rooms |= {path.parent.name for path in ROOT.glob("*/*.py")}
    assert rooms == set(MAY_IMPORT)
    assert all(
        (ROOT / r / "__init__.py").exists() for r in rooms if (ROOT / r).is_dir()
    )
    top = [p for p in ROOT.iterdir() if p.suffix == ".py" or p.is_dir()]
    assert len([p for p in top if p.name != "__pycache__"]) <= MOST_ROOMS


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    place = room if (ROOT / room).is_dir() else f"{room}.py"
    for path in modules(place):
        rooms = {
            name.split(".")[1] for name in imported(path) if name.startswith("diffjax.")
        }
        assert rooms <= MAY_IMPORT[room] | {room}, path


def test_the_picture_of_the_rooms_is_true():
    """A room imports from rows below its own."""
    picture = PAGE.split("```")[1].strip().splitlines()
    rows = [(int(line[0]), re.findall(r"[a-z]+", line[:38])) for line in picture]
    row = {room: number for number, rooms in rows for room in rooms}
    rooms = {room for room in MAY_IMPORT if not room.startswith("__")}
    assert rooms == set(row)
    for room in rooms:
        lower = MAY_IMPORT[room] - {"__version__"}
        assert all(row[other] < row[room] for other in lower), room


def test_the_page_names_what_there_is():
    """Files, and in one of a row's or paragraph's files all else that it names."""
    for block in re.split(r"\n(?=\||\d\. |\n)", PAGE.split("## From", 1)[1]):
        quoted = re.findall(r"`([^`\s]+)`", block)
        files = []
        for path in (name for name in quoted if "/" in name or "." in name):
            place = ROOT / path if (ROOT / path).exists() else ROOT.parent / path
            files += [place] if place.is_file() else sorted(place.rglob("*.py"))
            assert place.exists(), path
        texts = [
            file.read_text(encoding="utf-8")
            for file in files
            if ROOT.parent / "tests" not in file.parents
        ]
        for name in filter(str.isidentifier, quoted if texts else ()):
            assert any(re.search(rf"\b{name}\b", text) for text in texts), name


def test_no_name_is_undefined():
    """But for axes in jaxtyping's strings, which are letters.

    Ruff and mypy are told to let them pass, and let a missing import pass with them.
    """
    found = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "check", "--no-cache", str(ROOT)),
            *("--select", "F821", "--ignore", "F722", "--output-format", "json"),
        ],
        capture_output=True,
        check=False,
    )
    names = [
        (re.findall(r"`(\w+)`", each["message"])[0], each["filename"])
        for each in json.loads(found.stdout)
    ]
    assert names and [each for each in names if len(each[0]) > 1] == []


def without_jax():
    for room in NO_JAX:
        place = room if (ROOT / room).is_dir() else f"{room}.py"
        for path in modules(place):
            yield ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    yield from NO_JAX_EITHER


def test_the_host_side_knows_no_jax():
    """Not even by what it imports: in a fresh process."""
    code = (
        "import sys, importlib\n"
        f"for name in {list(without_jax())}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [m for m in {HEAVY} if m in sys.modules]\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_trace_and_draw_is_pinned():
    """What JAX's process-wide settings could change goes through two modules."""
    loose = re.compile(
        r"(?<!`)\bjax\.(jit|eval_shape|make_jaxpr|pmap)\b|\bnnx\.(jit|grad|Rngs\([^0)])"
        r"|\bjax\.random\.(?!fold_in|split|wrap_key_data|key_data|key_impl)"
    )
    for path in ROOT.rglob("*.py"):
        if path not in (ROOT / "tracing.py", ROOT / "scoring" / "noise.py"):
            assert not loose.search(path.read_text(encoding="utf-8")), path


def test_nothing_unpickles():
    for path in ROOT.rglob("*.py"):
        assert not {"dill", "joblib", "cloudpickle"} & set(imported(path))
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pickle\.(load|loads|Unpickler)\b", text), path
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path


def test_json_is_written_in_one_place():
    """… which knows neither NaN nor infinity."""
    for path in set(ROOT.rglob("*.py")) - {ROOT / "files.py"}:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"json\.dumps?\b", text), path


def test_files_are_small():
    long = {
        str(path.relative_to(ROOT)): n
        for path in ROOT.rglob("*.py")
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_public_names_are_what_they_are_called():
    assert {"DiffusionClassifier", "load_model", "Settings"} <= set(diffjax.__all__)
    for name in diffjax.__all__:
        assert getattr(diffjax, name).__name__ == name
    assert set(diffjax.__all__) < set(dir(diffjax))
    with pytest.raises(AttributeError, match="no attribute 'classifier'"):
        diffjax.classifier  # noqa: B018


@pytest.mark.slow
def test_type_checkers_know_the_public_names_and_keywords(tmp_path):
    lines = {
        "import diffjax": "",
        "clf = diffjax.DiffusionClassifier.from_pretrained('tiny', lossy='l1')": "loss",
        "reveal_type(clf.classify('a.png'))": "record.Record",
        "reveal_type(clf.classify(['a.png']))": "list[diffjax.classify.record.Record]",
        "reveal_type(diffjax.load_model('tiny', vae='mine'))": "DiffusionModel",
        "diffjax.load_model('tiny', varient='fp16')": "did you mean",
        "reveal_type(diffjax.evaluate('tiny', 'cifar10', limit=3))": "runs.run.Run",
        "diffjax.evaluate('tiny', 'cifar10', limits=3)": "limit",
        "diffjax.nothing": "no attribute",
    }
    (tmp_path / "use.py").write_text("\n".join(lines))
    mypy = [sys.executable, "-m", "mypy", "--follow-imports=silent", "use.py"]
    env = os.environ | {"MYPYPATH": str(ROOT.parent)}
    done = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path, env=env)
    told = [line for line in done.stdout.splitlines() if "defined in" not in line]
    for (number, said), line in zip(
        [(n, s) for n, s in enumerate(lines.values(), 1) if s], told[:-1], strict=True
    ):
        assert line.startswith(f"use.py:{number}: ") and said in line


def test_importing_the_package_is_light():
    heavy = ["jax", "flax", "optax", "transformers", "torch", "matplotlib", "numpy"]
    code = f"import sys, diffjax; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
