"""``fairseq-vat plot``: curves of one run or several, from whatever a run left."""

from __future__ import annotations

import json
import shutil

import pytest
from matplotlib import pyplot as plt

from fairseq_vat.cli.main import main
from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.report import plots

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def _records(slope: float, validated: bool = True) -> list[Record]:
    records = []
    for update in range(10, 110, 10):
        weight = min(1.0, slope * update)
        stats = {"nll_loss": 9.0 - update / 20, "kl_nats": 2 / update, "kl_weight": weight}
        records.append(Record("train_inner", 1, update, stats))
        if validated and update % 50 == 0:
            records.append(Record("valid", 1, update, stats, "valid"))
    return records


@pytest.fixture
def runs(tmp_path):
    """A folder with metrics.jsonl, and a log of text."""
    folder = tmp_path / "linear"
    folder.mkdir()
    with open(folder / "metrics.jsonl", "w", encoding="utf-8") as file:
        for record in _records(0.01):
            head = {"update": record.num_updates, "epoch": 1, "subset": record.subset}
            file.write(json.dumps({**head, "kind": record.kind, **record.stats}) + "\n")
    log = tmp_path / "cyclic.log"
    lines = (
        f"epoch 001: {record.num_updates:5d} / 100 num_updates={record.num_updates}, "
        + ", ".join(f"{name}={x:g}" for name, x in record.stats.items())
        for record in _records(0.05, validated=False)
    )
    log.write_text("\n".join(lines), encoding="utf-8")
    return folder, log


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are saved."""
    figures = {}

    def keep(figure, path, **_):
        figures[str(path).rpartition("/")[2]] = figure

    monkeypatch.setattr(plots, "save_figure", keep)
    yield figures
    plt.close("all")


def _legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_several_runs_in_one_picture(runs, drawn, tmp_path):
    assert main(["plot", *map(str, runs), "--output", str(tmp_path)]) == 0
    curves, annealing = drawn["learning_curves.png"], drawn["annealing.png"]
    assert _legend(curves) == ["linear", "cyclic", "train", "valid"]
    assert _legend(annealing) == ["linear", "cyclic"]
    (axis,) = annealing.axes
    linear, cyclic = (list(line.get_ydata()) for line in axis.lines)
    assert linear == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert cyclic == pytest.approx([0.5] + [1.0] * 9)
    assert len({line.get_color() for line in axis.lines}) == 2
    panels = {axis.get_title(loc="left"): axis for axis in curves.axes}
    assert set(panels) == set(plots.PANELS)
    colours = {line.get_color() for line in panels["KL divergence"].lines if len(line.get_xdata())}
    assert len(colours) == 2


def test_runs_without_validation_have_no_lines_to_tell_apart(drawn, tmp_path):
    runs = {"a": _records(0.01, validated=False), "b": _records(0.02, validated=False)}
    plots.compare_learning_curves(runs, tmp_path / "curves.png", kl_only=True)
    assert _legend(drawn["curves.png"]) == ["a", "b"]
    assert len(drawn["curves.png"].axes) == 3


def test_nine_runs_can_be_told_apart(drawn, tmp_path):
    plots.compare_learning_curves({str(n): _records(0.01) for n in range(9)}, tmp_path / "a.png")
    handles = drawn["a.png"].legends[0].get_lines()[:9]
    assert len({(line.get_color(), line.get_linestyle()) for line in handles}) == 9


def test_labels_are_shown_as_they_are(drawn, runs, tmp_path):
    labels = ["$s$ = 0.4", "_second"]
    arguments = [*map(str, runs), "--output", str(tmp_path), "--labels", *labels]
    assert main(["plot", *arguments]) == 0
    for figure in drawn.values():
        shown = [text.replace(r"\$", "$").strip("\u200b") for text in _legend(figure)]
        assert shown[:2] == labels


def test_what_tells_paths_apart(drawn, tmp_path):
    paths = []
    for name in ("one/linear", "two/linear"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        stats = {"update": 5, "epoch": 1, "subset": "train_inner", "kind": "train_inner"}
        stats |= {"nll_loss": 1.0, "kl_nats": 1.0, "kl_weight": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps(stats), encoding="utf-8")
        paths.append(str(folder / "metrics.jsonl"))
    assert main(["plot", *paths, "--output", str(tmp_path)]) == 0
    assert _legend(drawn["annealing.png"]) == ["one/linear", "two/linear"]
    for name in ("z0.5", "z0.6"):
        shutil.copytree(tmp_path / "one/linear", tmp_path / name)
    folders = [str(tmp_path / name) for name in ("z0.5", "z0.6")]
    assert main(["plot", *folders, "--output", str(tmp_path)]) == 0
    assert _legend(drawn["annealing.png"]) == ["z0.5", "z0.6"]


def test_formats(runs, tmp_path, capsys):
    for suffix, magic in MAGIC.items():
        folder = tmp_path / suffix
        assert main(["plot", str(runs[0]), "--output", str(folder), "--format", suffix]) == 0
        for name in ("learning_curves", "annealing"):
            assert (folder / f"{name}.{suffix}").read_bytes().startswith(magic)
    file = tmp_path / "curves.svg"
    capsys.readouterr()
    assert main(["plot", *map(str, runs), "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert file.read_bytes().startswith(MAGIC["svg"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["linear", "linear"], "linear is the name of two runs"),
        (["linear", "--labels", "a,b"], "--labels: 2 for 1 runs"),
        (["linear", "cyclic.log", "--labels", "a,a"], "a is the name of two runs"),
        (["."], ". has neither metrics.jsonl nor train.log"),
        (["linear", "--output", "x.svg", "--format", "pdf"], "--output x.svg is no pdf"),
        (["linear", "lm.log"], "lm.log has no nll_loss, kl_nats and kl_weight of updates"),
    ],
)
def test_mistakes_are_one_line(runs, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm.log").write_text("epoch 001:     10 / 14 nll_loss=3, num_updates=10\n")
    output = [] if "--output" in flags else ["--output", "x"]
    assert main(["plot", *flags, *output]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["jpg", "JPEG", "eps"])
def test_another_picture_is_no_folder(kind, runs, tmp_path, capsys):
    output = tmp_path / f"curves.{kind}"
    assert main(["plot", str(tmp_path / "linear"), "--output", str(output)]) == 1
    assert "must end in .png, .pdf or .svg, or be a folder" in capsys.readouterr().err
    assert not output.exists()
