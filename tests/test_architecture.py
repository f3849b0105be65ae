"""The house plan: imports point one way, and light modules stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffjax

ROOT = Path(diffjax.__file__).parent

# room: the rooms of diffjax that its modules may import
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "arrays": {"errors", "files"},
    "deadlines": set(),
    "temperature": {"errors", "files"},
    "tracing": set(),
    "complaints": set(),
    "distributed": {"errors"},
    "schedules": {"errors"},
    "models": {"errors", "schedules", "tracing"},
    "strategies": {"errors"},
    "data": {"arrays", "deadlines", "errors", "files"},
    "checkpoints": {"deadlines", "errors", "files", "schedules", "models"},
    "scoring": {"arrays", "errors", "files", "schedules", "models", "tracing"},
    "record": {"strategies"},
    "settings": {"errors", "data", "record", "scoring", "strategies"},
    "candidates": {"errors", "data", "models", "scoring"},
    "estimates": {"candidates", "models", "scoring", "strategies", "tracing"},
    "search": {
        "errors",
        "candidates",
        "estimates",
        "record",
        "scoring",
        "settings",
        "strategies",
    },
    "classifier": {
        "errors",
        "candidates",
        "checkpoints",
        "data",
        "estimates",
        "models",
        "record",
        "scoring",
        "search",
        "settings",
        "strategies",
        "temperature",
    },
    "baselines": {"errors", "checkpoints", "data", "files", "models", "tracing"},
    "explanation": {"errors", "classifier", "data", "scoring", "strategies", "tracing"},
    "training": {
        "arrays",
        "errors",
        "files",
        "baselines",
        "checkpoints",
        "data",
        "models",
        "schedules",
        "scoring",
        "tracing",
    },
    "evaluation": {
        "__version__",
        "arrays",
        "deadlines",
        "explanation",
        "errors",
        "files",
        "baselines",
        "candidates",
        "checkpoints",
        "classifier",
        "data",
        "models",
        "record",
        "schedules",
        "scoring",
        "search",
        "settings",
        "strategies",
        "temperature",
        "tracing",
    },
    "cli": {
        "complaints",
        "__version__",
        "errors",
        "baselines",
        "candidates",
        "checkpoints",
        "classifier",
        "data",
        "distributed",
        "evaluation",
        "files",
        "record",
        "search",
        "strategies",
        "temperature",
        "training",
        "explanation",
    },
    "__init__": {
        "errors",
        "explanation",
        "checkpoints",
        "classifier",
        "data",
        "record",
        "settings",
        "strategies",
    },
    "__main__": {"cli"},
}
NO_JAX = (
    *("strategies", "data", "evaluation", "cli"),
    *(
        "arrays.py",
        "deadlines.py",
        "errors.py",
        "files.py",
        "record.py",
        "temperature.py",
    ),
)


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


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    place = room if (ROOT / room).is_dir() else f"{room}.py"
    for path in modules(place):
        rooms = {
            name.split(".")[1] for name in imported(path) if name.startswith("diffjax.")
        }
        assert rooms <= MAY_IMPORT[room] | {room}, path


@pytest.mark.parametrize("place", NO_JAX)
def test_the_host_side_knows_no_jax(place):
    for path in modules(place):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"jax", "flax", "optax", "torch", "tensorflow"}, path


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


def test_importing_the_package_is_light():
    heavy = ["jax", "flax", "optax", "transformers", "torch", "matplotlib", "numpy"]
    code = f"import sys, diffjax; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
