"""A plain installation suffices to classify, and says how to get what it lacks."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from commands import assert_only_refused, invoke

import diffjax
from diffjax.errors import OPTIONAL, DiffjaxError, optional

ROOT = Path(diffjax.__file__).parent
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# module: the only room that imports it
ONLY_IN = {
    "datasets": "data",
    "optax": "training",
    "orbax": "training",
    "torch": "checkpoints",
}
# of the scripts that compare, and compilers for devices that are elsewhere
NOT_OURS = {"torchvision", "libtpu", "open-clip-torch"}
NOT_ON_WINDOWS = {"curses", "fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
NOT_TO_CLASSIFY = ("orbax", "tensorstore", "tensorflow_datasets", "torch")


def names(requirements):
    """The distributions that requirements name, spelt alike."""
    found = (re.match(r"[\w.-]+", requirement)[0] for requirement in requirements)
    return {spelt_alike(name) for name in found}


def spelt_alike(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def walk_without_types(node):
    """All nodes but what only type checkers read."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_without_types(child)


def test_what_is_imported_is_required():
    base = names(PROJECT["dependencies"])
    installed = packages_distributions()
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in walk_without_types(tree):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                continue
            for module in {module.partition(".")[0] for module in modules}:
                assert module not in NOT_ON_WINDOWS, f"{path} imports {module}"
                if module in sys.stdlib_module_names or module == "diffjax":
                    continue
                if path.relative_to(ROOT).parts[0] == ONLY_IN.get(module):
                    continue
                found = {spelt_alike(name) for name in installed.get(module, [])}
                assert found & base, f"{path} imports {module}"


def test_what_flax_brings_for_training_is_not_imported_to_classify():
    code = (
        "import sys, diffjax.evaluation.runner, diffjax.checkpoints.loading\n"
        "import diffjax.cli.commands, diffjax.report.page\n"
        f"assert not set({NOT_TO_CLASSIFY}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_optional_modules_are_in_the_extras_that_messages_name():
    installed = packages_distributions()
    for module, command in OPTIONAL.items():
        if extra := re.fullmatch(r'"diffjax\[(\w+)\]"', command):
            package = module.partition(".")[0]
            (distribution,) = set(installed.get(package, [package]))
            assert spelt_alike(distribution) in names(EXTRAS[extra[1]])


def written():
    """The texts in which installations are written of."""
    root = ROOT.parent
    for folder in ("diffjax", "docs", "notebooks", "scripts"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".ipynb", ".sh", ".yaml"):
                yield path, path.read_text("utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "mkdocs.yml"):
        yield root / name, (root / name).read_text("utf-8")


def test_extras_that_are_written_of_exist():
    found = {
        name
        for _, text in written()
        for names in re.findall(r"[\".]\[([a-z,]+)\]\"", text)
        + re.findall(r"diffjax\[([a-z,]+)\]", text)
        for name in names.split(",")
    }
    assert {"cuda", "test", "tfds", "torch", "train"} <= found <= set(EXTRAS)


def test_what_is_to_be_installed_exists():
    """This project, its extras, and packages by their names: pip's first argument."""
    known = names(PROJECT["dependencies"]).union(*map(names, EXTRAS.values()))
    known |= {spelt_alike(each) for each in OPTIONAL.values() if each.isalpha()}
    found = {
        (path.name, word)
        for path, text in written()
        for word in re.findall(r"pip install (?:-\S+ )*[\\\"']*([.{]?[\w-]*)", text)
    }
    for path, word in found:
        ours = {".", "diffjax", "{OPTIONAL"}  # the last is what code fills in
        assert word in ours or spelt_alike(word) in known | NOT_OURS, (path, word)
    assert {word for _, word in found} >= {".", "diffjax", "jax", "libtpu"}


@pytest.mark.parametrize(
    ("missing", "args"),
    [
        ("tensorflow_datasets", ["evaluate", "cifar10", "--model", "tiny"]),
        ("array_record", ["evaluate", "cifar10", "--model", "tiny", "--dry-run"]),
        ("tensorflow_datasets", ["baseline", "resnet", "photos"]),
        ("tensorflow_datasets", ["train", "tiny", "--out", "run"]),
        ("datasets", ["evaluate", "--dataset", "hf:mnist:test", "--model", "tiny"]),
    ],
)
def test_a_missing_extra_is_one_line(missing, args, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    result = invoke(*args)
    assert_only_refused(result, missing, f"pip install {OPTIONAL[missing]}")
    assert not list(tmp_path.iterdir())


def test_training_without_orbax(monkeypatch, tmp_path):
    from diffjax.training.checkpoint import Checkpoints

    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(
        DiffjaxError, match=r'needs orbax .*pip install "diffjax\[train'
    ):
        Checkpoints(tmp_path)


def test_a_broken_package_says_why(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(DiffjaxError, match=r"needs wandb .*a_module_that_nobody_has"):
        optional("wandb", "--wandb")
