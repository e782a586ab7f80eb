"""Semantic textual similarity: correlations, files, and the command."""

from __future__ import annotations

import csv
import random
import re

import numpy as np
import pytest
from helpers import commands, huggingface
from helpers.text import WORDS, sentences
from scipy import stats

from fairseq_vat.cli.tables import WIDTH
from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface, from_pretrained
from fairseq_vat.measures import correlation
from fairseq_vat.text.columns import read_pairs, read_task

RNG = np.random.default_rng(1)


def test_cosines():
    first = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    second = np.array([[3.0, 4.0], [0.0, 5.0], [-1e-30, -1e-30], [1.0, 1.0]])
    assert correlation.cosines(first, second)[:3].tolist() == [1, 0, -1]
    assert np.isnan(correlation.cosines(first, second)[3])
    many = RNG.normal(size=(1000, 7)).astype(np.float32)
    assert np.ptp(correlation.cosines(many, many)) == 0  # pairs of one sentence twice are ties
    other = RNG.normal(size=(1000, 7))
    # mean and sum pooling have one cosine
    np.testing.assert_allclose(
        correlation.cosines(many, other), correlation.cosines(many / 9, other * 30), atol=1e-7
    )


def test_correlations_in_closed_form():
    # ranks 1.5 1.5 3 4 and 1 2 3 4: covariance 4.5, sums of squares 4.5 and 5
    found = correlation.correlate(np.array([0.1, 0.1, 0.2, 0.9]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert found.pairs == 4
    assert found.spearman == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    # deviations -9 -9 -5 23 (over 40) and -3 -1 1 3 (over 2)
    assert found.pearson == pytest.approx(100 / (716 * 20) ** 0.5)
    falling = correlation.correlate(np.arange(9.0), np.exp(-np.arange(9.0)))
    assert falling.spearman == pytest.approx(-1, rel=1e-15)


@pytest.mark.parametrize("ties", [3, 10, 10_000])
@pytest.mark.parametrize("scale", [1, 1e-200])
def test_correlations_by_their_definitions(ties, scale):
    x = RNG.integers(0, ties, 500).astype(float)
    y = (x + RNG.normal(size=500) * ties).round()
    found = correlation.correlate(x, scale * y)  # squares would underflow
    ranks = [stats.rankdata(values) for values in (x, y)]
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert found.pearson == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


def test_three_averages_that_differ():
    subsets = {
        "one": (np.array([0.8, 0.9]), np.array([1.0, 2.0])),  # 1
        "two": (np.array([0.1, 0.2, 0.3]), np.array([2.0, 3.0, 1.0])),  # -0.5
    }
    found = correlation.summarize(subsets)
    assert [c.spearman for c in found.subsets.values()] == pytest.approx([1, -0.5])
    assert found.mean.spearman == pytest.approx(0.25)
    assert found.weighted_mean.spearman == pytest.approx((2 * 1 - 3 * 0.5) / 5)
    together = stats.spearmanr([0.8, 0.9, 0.1, 0.2, 0.3], [1, 2, 2, 3, 1]).statistic
    assert found.all_pairs.spearman == pytest.approx(together)
    assert {c.pairs for c in (found.mean, found.weighted_mean, found.all_pairs)} == {5}


@pytest.mark.parametrize(
    ("similarities", "scores", "reason"),
    [
        ([0.5], [1.0], "two pairs at least"),
        ([0.1, 0.2], [3.0, 3.0], "same gold score"),
        ([1.0, 1.0 - 1e-10, 1.0], [1.0, 2.0, 3.0], "same cosine"),
        ([0.1, np.nan, 0.3], [1.0, 2.0, 3.0], "1 of 3 pairs have a vector that is zero"),
    ],
)
def test_no_correlation_is_none_with_a_reason(similarities, scores, reason):
    undefined = (np.array(similarities), np.array(scores))
    fine = (np.array([0.1, 0.2]), np.array([1.0, 2.0]))
    found = correlation.summarize({"bad": undefined, "good": fine})
    bad = found.subsets["bad"]
    assert (bad.spearman, bad.pearson) == (None, None)
    assert reason in bad.undefined
    assert found.mean.spearman is None
    assert found.weighted_mean.undefined == "bad has no correlation"
    assert found.subsets["good"].spearman == pytest.approx(1, rel=1e-15)


def write(folder, **subsets):
    """Subsets whose scores are shares of common words; numbers are of pairs."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(1)
    for seed, (name, count) in enumerate(subsets.items()):
        lines = []
        for first in sentences(count, 20 + seed):
            words = [word if rng.random() < 0.6 else rng.choice(WORDS) for word in first.split()]
            common = len(set(words) & set(first.split())) / len(words)
            lines.append(f"{5 * common:.3f}\t{first}\t{' '.join(words)}\n")
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def run(subcommand):
    return subcommand("sts", "--cpu")


def test_the_command(run, data_dir, checkpoint, tmp_path, monkeypatch):
    folder = write(tmp_path / "toy", easy=60, other=40)
    encoded = []
    whole = VATHubInterface.embed_posteriors

    def counted(self, texts, *rest):
        encoded.append(list(texts))
        return whole(self, texts, *rest)

    monkeypatch.setattr(VATHubInterface, "embed_posteriors", counted)
    found = run("--sts", folder, "--json")
    assert not run.warnings
    assert len(encoded) == 1  # for three poolings
    assert len(set(encoded[0])) == len(encoded[0])

    (system,) = found["systems"]
    assert system["latent_level"] == "token"
    assert system["unknown_share"] == {"toy": 0}
    assert set(system["poolings"]) == {"start", "mean", "sum"}
    vat = from_pretrained(checkpoint.parent, data_name_or_path=str(data_dir), device="cpu")
    for pooling in system["poolings"]:
        task = system["poolings"][pooling]["tasks"]["toy"]
        together = []
        for name, pairs in read_task(folder).items():
            first = vat.embed([pair.first for pair in pairs], pooling)
            second = vat.embed([pair.second for pair in pairs], pooling)
            cosines = correlation.cosines(first, second)
            scores = [pair.score for pair in pairs]
            together += zip(cosines, scores, strict=True)
            assert task["subsets"][name]["pairs"] == len(pairs)
            assert task["subsets"][name]["pearson"] == pytest.approx(
                stats.pearsonr(cosines, scores).statistic, abs=1e-5
            )
        expected = stats.spearmanr(*zip(*together, strict=True)).statistic
        assert task["all_pairs"]["spearman"] == pytest.approx(expected, abs=1e-3)
    mean, total = (system["poolings"][name]["tasks"]["toy"] for name in ("mean", "sum"))
    assert mean["mean"]["spearman"] > 0.2  # common words show
    assert mean["mean"]["pearson"] == pytest.approx(total["mean"]["pearson"], abs=1e-5)


def test_the_table_with_a_hugging_face_encoder_beside(run, tmp_path):
    flags = ["--sts", write(tmp_path / "a", x=30), write(tmp_path / "b", x=20, y=30)]
    huggingface.save_bert(tmp_path / "tiny", WORDS)
    flags += ["--hf", tmp_path / "tiny", "--pooling", "sum", "start"]
    found, tables = run(*flags, "--json"), run(*flags, "--format", "csv").split("\n\n")
    vat, bert = found["systems"]
    assert bert["name"] == "tiny"
    assert list(vat["poolings"]) == list(bert["poolings"]) == ["sum", "start"]
    rows = {name: cells for name, *cells in csv.reader(tables[1].splitlines())}
    for row, path in {
        "b y": ("tasks", "b", "subsets", "y"),
        "b, mean, weighted by pairs": ("tasks", "b", "weighted_mean"),
        "mean over tasks of: all pairs together": ("average_of_tasks", "all_pairs"),
    }.items():
        values = []
        for system in (vat, bert):
            for result in system["poolings"].values():
                for key in path:
                    result = result[key]
                values.append(f"{100 * result['pearson']:.2f}")  # Pearson's is the second table
        assert rows[row] == [str(result["pairs"]), *values], row
    for kind in ("mean", "all_pairs"):
        tasks = [bert["poolings"]["sum"]["tasks"][task][kind]["spearman"] for task in "ab"]
        average = bert["poolings"]["sum"]["average_of_tasks"][kind]["spearman"]
        assert average == pytest.approx(sum(tasks) / 2)


def test_many_encoders_are_tables_below_each_other(run, tmp_path):
    flags = ["--sts", write(tmp_path / "a", x=30)]
    paths = [tmp_path / f"an-encoder-with-a-name-{n}" for n in range(3)]
    for path in paths:
        huggingface.save_bert(path, WORDS)
    blocks = run(*flags, "--hf", *paths).rstrip("\n").split("\n\n")[1:]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= WIDTH
    for title in ("Spearman x 100", "Pearson x 100"):
        heads = " ".join(block.splitlines()[0] for block in blocks if block.startswith(title))
        assert all(f"{path.name} {p}" in heads for path in paths for p in ("mean", "sum"))


def test_the_tables_as_csv_are_nothing_else(run, tmp_path):
    flags = ["--sts", write(tmp_path / "toy", x=20), "--pooling", "mean"]
    tables = run(*flags, "--format", "csv").rstrip("\n").split("\n\n")
    (system,) = run(*flags, "--json")["systems"]
    result = system["poolings"]["mean"]["tasks"]["toy"]["subsets"]["x"]
    for text, measure in zip(tables, ("spearman", "pearson"), strict=True):
        head, first, *_ = csv.reader(text.splitlines())
        assert head == [f"{measure.title()} x 100", "pairs", "checkpoint mean"]
        assert first == ["toy x", "20", f"{100 * result[measure]:.2f}"]


def test_a_file_is_a_task_of_one_subset(run, tmp_path):
    folder = write(tmp_path / "toy", x=30, y=20)
    flags = ("--json", "--pooling", "mean")
    (whole,) = run("--sts", folder, *flags)["systems"]
    (alone,) = run("--sts", folder / "x.tsv", folder / "y.tsv", *flags)["systems"]
    tasks = alone["poolings"]["mean"]["tasks"]
    subsets = whole["poolings"]["mean"]["tasks"]["toy"]["subsets"]
    assert list(tasks) == ["x.tsv", "y.tsv"]
    for name, subset in subsets.items():
        (found,) = tasks[f"{name}.tsv"]["subsets"].values()
        assert found == pytest.approx(subset)


def test_undefined_is_said_and_null(run, tmp_path):
    folder = write(tmp_path / "toy", fine=20)
    (folder / "flat.tsv").write_text("3\tw1 w2\tw3\n3.0\tw1\tw4\n", encoding="utf-8")
    (folder / "one.tsv").write_text("3\tw1 w2\tw1 w2\n2\tw4\tw4\n", encoding="utf-8")
    found, table = run("--sts", folder, "--json"), run("--sts", folder)
    task = found["systems"][0]["poolings"]["mean"]["tasks"]["toy"]
    assert task["subsets"]["flat"]["spearman"] is None
    assert task["mean"]["pearson"] is None
    assert task["all_pairs"]["pearson"] is not None
    assert re.search(r"^toy flat +2( +undefined){3}$", table, re.MULTILINE)
    assert "undefined: checkpoint, mean: toy flat: all pairs have the same gold score" in table
    assert "undefined: checkpoint, sum: toy one: all pairs have the same cosine" in table
    assert "nan" not in table


def test_one_latent_a_sentence_and_no_start_token(run, data_dir, tmp_path):
    folder = write(tmp_path / "toy", x=20)
    small = ("--encoder-embed-dim", "16", "--decoder-embed-dim", "16", "--max-update", "1")
    commands.train(data_dir, tmp_path / "vae", "--arch", "vae_transformer", *small)
    path = tmp_path / "vae/checkpoint_last.pt"
    (system,) = run("--sts", folder, "--json", "--pooling", "sum", path=path)["systems"]
    assert list(system["poolings"]) == ["latent"]
    assert "a latent of width 64 for each sentence" in run("--sts", folder, path=path)
    commands.train(data_dir, tmp_path / "vat", "--no-start-token", "--max-update", "1")
    path = tmp_path / "vat/checkpoint_last.pt"
    (system,) = run("--sts", folder, "--json", path=path)["systems"]
    assert list(system["poolings"]) == ["mean", "sum"]
    assert "--no-start-token" in run("--sts", folder, "--pooling", "start", path=path)


def test_unknown_words_are_counted_and_warned_of(run, tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "x.tsv").write_text("1\tw1 w2\tw3 b c\n2\tw1 w4\ta w2 c\n", encoding="utf-8")
    (system,) = run("--sts", folder, "--json")["systems"]
    assert system["unknown_share"] == {"toy": 0.4}
    assert run.warnings.startswith("fairseq-vat: warning: 40% of the pieces in toy are unknown")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " holds no line; each must be score<TAB>sentence<TAB>sentence"),
        ("\n \n", " holds no line"),
        ("score\ts1\ts2\n", ":1: the score 'score' is no number"),
        ("1\ta\tb\n\nnan\ta\tb\n", ":3: the score 'nan' is no number"),
        ("\ta\tb\n", ":1: the score is empty"),
        ("1\ta\n", ":1: 2 columns; each line must be"),
        ("1 a b\n", ":1: no TAB"),
        ("1\ta\tb\tc\n", ":1: 4 columns"),
        ("1\ta\t\x00 \n", ":1: the second sentence is empty"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, message):
    (tmp_path / "x.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(VATError) as caught:
        read_task(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'x.tsv'}{message}")


def test_reading(tmp_path, caplog):
    path = tmp_path / "x.tsv"
    path.write_bytes(b'\xef\xbb\xbf4.5\t"a  b\t c"\r\n\n-1e0\tcaf\xe9\t\'\n')
    assert read_pairs(path) == [(4.5, '"a b', 'c"'), (-1, "caf\ufffd", "'")]
    assert "1 lines aren't UTF-8, line 3 the first" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sts", "none"], "none doesn't exist; give a folder of .tsv files, or a file"),
        (["--sts", __file__], "test_sts.py:1: no TAB; each line must be score<TAB>"),
        (["--sts", "EMPTY"], "has no .tsv file"),
        (["--sts", "TOY", "TOY"], "is given twice"),
        (["--sts", "TOY", "--hf", "none"], "none is not a Hugging Face model's folder"),
        (["--sts", "TOY", "--sentencepiece-model", "none.model"], "file none.model not found"),
    ],
)
def test_flags_that_are_wrong(run, tmp_path, flags, message):
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "TOY": write(tmp_path / "toy", x=5)}
    assert message in run(*(places.get(flag, flag) for flag in flags))
