"""Imports between the package's rooms go one way, and what should load lightly does."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import fairseq_vat

PACKAGE = Path(fairseq_vat.__file__).parent
# A room, or a module at the top, imports from those after it alone.
ORDER = (
    *("cli", "recipes", "report", "evaluation", "hub", "plugin", "tasks", "criterions", "models"),
    *("optim", "measures", "latent", "compat", "text", "hardware", "files", "errors", "pretrained"),
)
# Late imports that go the other way, which fairseq's and Python's own idioms ask for.
EXCEPTIONS = {
    ("models", "hub"),  # VATModel.from_pretrained, as in fairseq
    ("", "plugin"),  # the package registers itself where fairseq is
    # nothing is registered without the plugin's checks, whichever module is imported first
    *((room, "plugin") for room in ("models", "criterions", "tasks", "optim")),
}
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def _imported(path: Path) -> set[str]:
    """Rooms that a file imports from, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "fairseq_vat" and rest != "__version__":
                found.add(rest.partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = _room(path)
    for other in _imported(path) - {room}:
        if (room, other) not in EXCEPTIONS:
            assert ORDER.index(room) < ORDER.index(other), f"{room} must not import {other}"


def test_the_top_has_few_modules_and_every_room_is_known():
    top = {path.stem for path in PACKAGE.glob("*.py")}
    assert top == {"__init__", "plugin", "errors", "files", "hardware"}
    assert {_room(path) for path in FILES} - {""} == set(ORDER)


def test_files_are_read_in_one_sitting():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path.name: length for path, length in lengths.items() if length > 300} == {}


def test_names_are_given_once():
    names = Counter(path.name for path in FILES)
    # fairseq's layout asks for the configuration of each part beside it
    assert {name for name, count in names.items() if count > 1} == {"__init__.py", "config.py"}
    classes = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in classes.items() if count > 1} == set()


@pytest.mark.parametrize("module", ["fairseq_vat", "fairseq_vat.errors", "fairseq_vat.cli.main"])
def test_light_imports(module):
    """Neither torch nor fairseq is loaded, and nothing global is changed."""
    code = (
        f"import sys; hook = sys.excepthook; import {module}; assert sys.excepthook is hook; "
        "print(sorted({'torch', 'fairseq', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# in a process that has only what fairseq itself imports, as that takes most of the time
FIRST_IMPORTS = """
import os, sys, hydra, matplotlib, omegaconf, sacrebleu, sklearn.linear_model, torch
for code in sys.argv[1:]:
    assert "fairseq" not in sys.modules
    child = os.fork()
    if not child:
        exec(code)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_nothing_is_registered_without_the_checks(monkeypatch):
    """Whatever is the first import, before fairseq's; the Python interface too."""
    monkeypatch.setenv("WHOLE_FAIRSEQ", "1")
    modules = ("hub.loading", "models.config", "tasks.config", "criterions.config")
    checked = (
        "; from fairseq import checkpoint_utils, models; "
        "assert 'vat_transformer' in models.ARCH_MODEL_REGISTRY; "
        "assert checkpoint_utils.torch.check.__name__ == 'check_checkpoint'"
    )
    codes = [f"import fairseq_vat.{m}{checked}" for m in (*modules, "evaluation.evaluate")]
    codes.append(
        "from fairseq_vat import VATModel; from fairseq.models import ARCH_MODEL_REGISTRY as r; "
        "assert r['vae_transformer'] is VATModel"
    )
    command = [sys.executable, "-c", FIRST_IMPORTS, *codes]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _private_names(path: Path) -> set[str]:
    """Names with a leading underscore that a file reads of others, also as setattr's strings."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names |= set() if own else {node.attr}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("attr", "patch")):
            strings = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            names |= {part for text in strings for part in str(text).split(".")}
    private = {name for name in names if name.startswith("_") and not name.startswith("__")}
    return private - {"_name"}  # fairseq's configurations have it


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_tests_use_public_names_and_each_other_s_helpers_alone(path):
    assert _private_names(path) == set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in modules if name.startswith(("test_", "conftest"))}
