"""The VAT paper's tables: the script's steps with commands that only pretend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import vat_paper as paper
import vat_tables
from helpers.scripts import Workplace

PRETEND = """
if name == "fairseq-vat" and args[0] == "sts":
    correlation = {"spearman": 0.5, "pearson": 0.25, "undefined": None}
    task = dict.fromkeys(("mean", "weighted_mean"), correlation)
    task["all_pairs"] = dict.fromkeys(correlation)  # undefined
    task["subsets"] = {"a": correlation, "b": correlation}
    system = {"name": "checkpoint", "poolings": {"mean": {"tasks": {"sts12": task}}}}
    print(json.dumps({"systems": [system]}))
if name == "fairseq-vat" and args[0] == "isotropy":
    layer = {"random_cosine": 0.125, "self_similarity": 0.75, "intra_sentence_similarity": 0.5,
             "iso_score": 0.25}
    word = {"word": "the", "self_similarity": 0.5}
    print(json.dumps({"sentences": 9, "tokens": 99, "layers": [{"layer": 0, **layer}],
                      "latents": layer, "words": [word]}))
if name == "fairseq-vat" and args[0] == "probe":
    if "finetune" in args and os.environ.get("FAIL"):
        sys.exit("no memory is left")
    scores = {"accuracy": 62.5, "accuracy_std": 1.5}
    parts = {"valid": scores, "test": scores}
    result = {"encoder": "checkpoint", "pooling": "sum", "runs": [1, 2], **parts}
    print(json.dumps({"results": [result], "majority": parts}))
"""


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    for name in ("sts12", "sst2"):
        (tmp_path / name).mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "sst2" / f"{split}.tsv").write_text("1\ta\n")
    (tmp_path / "mr.tsv").write_text("1\ta\n")
    for name in ("model.pt", "another.pt", "m"):
        (tmp_path / name).touch()
    return Workplace(tmp_path, "reproduce_vat.sh", PRETEND)


SETS = ("sts12=sts12", "sst2=sst2", "mr=mr.tsv")


def test_measured_beside_the_paper(work):
    done = work.run("out", "model.pt", *SETS, "--max-folds", "2", "--", "--cpu")
    assert done.returncode == 0, done.stderr
    vat_tables.write_markdown(work.folder / "out")
    text = (work.folder / "out" / "tables.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| sts12, mean of subsets")]
    assert row.split()[6:-1:2] == ["50.00", "17.45", "45.60", "45.60", "38.78"]
    assert "| latents    |" in text and "`the` 0.50" in text
    cells = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| VAT-sum  ")]
    assert [cell.strip() for cell in cells[0]] == ["VAT-sum", *["62.5 ± 1.5 / 62.5 ± 1.5 (2)"] * 2]
    assert "| VAT-mean (paper)       | 73.8 / 74.1" in text
    probes = work.calls("fairseq-vat", "probe")
    assert all(call[2] == "model.pt" and call[-1] == "--cpu" for call in probes)
    # only a fine-tuning's folds are cut short
    cut = [call for call in probes if "--max-folds" in call]
    assert [call[call.index("--mode") + 1] for call in cut] == ["finetune"]
    # nothing is measured twice, and another model's figures aren't taken for this one's
    assert work.run("out", "model.pt", *SETS, "--max-folds", "2", "--", "--cpu").returncode == 0
    assert work.calls("fairseq-vat") == []
    for other in (["another.pt", *SETS], ["another.pt", "stsb=sts12"]):
        done = work.run("out", *other)
        assert done.returncode == 1 and "made with other flags or texts" in done.stderr
        assert work.calls("fairseq-vat") == []
    (work.folder / "model.pt").write_text("trained further")
    assert work.run("out", "model.pt", "stsb=sts12").returncode == 1
    work.calls_file.write_text("")


def test_another_model_or_text_of_the_same_name_is_noticed(work):
    folder = work.folder / "run"
    folder.mkdir()
    for path in (folder / "checkpoint_last.pt", work.folder / "mr.tsv"):
        path.write_text("one")
        assert work.run("out", "run", "mr=mr.tsv", "--modes", "features").returncode == 0
        path.write_text("another")
        done = work.run("out", "run", "mr=mr.tsv", "--modes", "features")
        assert done.returncode == 1 and "made with other flags or texts" in done.stderr
        shutil.rmtree(work.folder / "out")


def test_what_failed_is_done_again(work):
    done = work.run("out", "m", "sst2=sst2", FAIL="1", EACH="1")
    assert done.returncode == 1 and "no memory is left" in done.stderr
    assert "fine-tuned" not in (work.folder / "out" / "tables.md").read_text()
    assert work.run("out", "m", "sst2=sst2", EACH="1").returncode == 0
    assert len(work.calls("fairseq-vat")) == 1
    assert "fine-tuned" in (work.folder / "out" / "tables.md").read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["sts11=sts12"], "sts11=sts12: NAME=PATH is needed"),
        (["sts12=there"], "there: there is no such file or folder"),
        (["mr=mr.tsv", "--folds", "0"], "--folds 0: must be a whole number"),
        (["mr=mr.tsv", "--modes", "all"], "--modes all: features, finetune or both"),
        ([], "NAME=PATH is needed, such as text=sentences.txt"),
    ],
)
def test_mistakes(work, words, error):
    done = work.run("out", "m", *words)
    assert done.returncode == 1 and error in done.stderr
    assert not (work.folder / "out").exists()


def test_a_model_that_is_not_there(work):
    done = work.run("out", "nowhere.pt", *SETS)
    assert done.returncode == 1
    assert "nowhere.pt: there is no such checkpoint, folder or packaged model" in done.stderr
    assert not (work.folder / "out").exists()


def test_the_papers_own_averages():
    """Table 4's last column is the mean of the sets' figures and of SICK-R's."""
    for name, sick, average in (("VAT-mean", 47.08, 50.66), ("VAT-start", 37.15, 23.34)):
        figures = [*paper.table_4()[name].values(), sick]
        assert sum(figures) / len(figures) == pytest.approx(average, abs=0.005)
    assert paper.table_5("features")["VAT-sum"]["trec"] == "46.8 / 54.8"
