"""What is installed: the wheel's files, built from the source distribution's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from helpers.scripts import ROOT

import fairseq_vat

_BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"


def build(kind: str, source: Path, out: Path) -> Path:
    out.mkdir()
    command = [sys.executable, "-c", _BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packaging")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("fairseq_vat", "configs"):
        shutil.copytree(ROOT / name, tree / name)
    compiled = tree / "fairseq_vat" / "pretrained" / "__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "__init__.cpython-311.pyc").write_bytes(b"")
    for path in (path for path in ROOT.iterdir() if path.is_file() and path.name[0] != "."):
        shutil.copy(path, tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_one.py").write_text("")
    # a packaged model, whose files are no Python
    (tree / "fairseq_vat" / "pretrained" / "some").mkdir()
    for name in ("model.pt", "dict.txt", "README.md"):
        (tree / "fairseq_vat" / "pretrained" / "some" / name).write_text("x\n")
    sdist = build("sdist", tree, folder / "sdist")
    shutil.unpack_archive(sdist, folder / "unpacked")
    (source,) = (folder / "unpacked").iterdir()
    assert (source / "constraints.txt").is_file() and not (source / "tests").exists()
    return build("wheel", source, folder / "wheel")


def test_it_has_every_file(wheel):
    package = ROOT / "fairseq_vat"
    expected = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pt")
    }
    expected |= {f"fairseq_vat/{path.relative_to(ROOT)}" for path in ROOT.glob("configs/**/*.yaml")}
    some = "fairseq_vat/pretrained/some"
    expected |= {f"{some}/model.pt", f"{some}/dict.txt", f"{some}/README.md"}
    assert {"fairseq_vat/py.typed", "fairseq_vat/report/report.html.j2"} < expected
    with zipfile.ZipFile(wheel) as files:
        found = {name for name in files.namelist() if ".dist-info/" not in name}
    assert expected <= found
    assert not [name for name in found if not name.startswith("fairseq_vat/")]
    assert not [name for name in found if name.endswith(".pyc")]


def test_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        metadata = message_from_string(files.read(name).decode())
    assert metadata["Version"] == fairseq_vat.__version__
    assert metadata["License-Expression"] == "MIT"
    assert "sentence-transformers" in metadata.get_all("Provides-Extra")
    assert any(line.startswith("ve-fairseq") for line in metadata.get_all("Requires-Dist"))


def test_it_finds_its_experiments(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as files:
        files.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_vat.cli", "train", "--presets"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    *names, empty, folder = done.stdout.splitlines()
    assert names == sorted(path.stem for path in ROOT.glob("configs/*.yaml"))
    assert empty == ""
    assert folder == f"fairseq-hydra-train --config-dir {tmp_path / 'fairseq_vat' / 'configs'}"


def test_the_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {fairseq_vat.__version__}" in lines
