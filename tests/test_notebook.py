"""The notebook of the first quarter of an hour runs from end to end, in the small."""

import os
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    words = [f"w{number}" for number in range(40)]
    lines = [f"{a} {b} {c} ." for a in words[:10] for b in words[10:20] for c in words[20:22]]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    notebook = nbformat.read(DOCS / "first_quarter_hour.ipynb", as_version=4)
    (parameters,) = (cell for cell in notebook.cells if cell.source.startswith("text = None"))
    parameters.source = (
        f"text, updates, folder = {str(tmp_path / 'lines.txt')!r}, 3, {str(tmp_path)!r}"
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{DOCS.parent}:{os.environ['PYTHONPATH']}")
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": DOCS}})
    client.execute()
    assert (tmp_path / "vat" / "checkpoint_last.pt").is_file()
    assert notebook.cells[-2].outputs[-1].data["image/png"]
