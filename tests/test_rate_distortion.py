"""Rate, distortion and what draws are worth: its figures against those of evaluate, and by hand."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import draw_statistics as statistics
import pytest
import rate_distortion
from helpers import commands

from fairseq_vat.cli.main import main as command_line
from fairseq_vat.cli.tables import MISSING, WIDTH, table
from fairseq_vat.errors import VATError


class Sense:
    """A synset with a place on a line; path similarity by the steps between two."""

    def __init__(self, place: int):
        self.place = place

    def path_similarity(self, other: Sense) -> float:
        return 1 / (1 + abs(self.place - other.place))


class WordNet:
    """Stands in for nltk's reader."""

    senses = {
        ("dog", "n"): [Sense(0)],
        ("dogs", "n"): [Sense(0)],
        ("cat", "n"): [Sense(2)],
        ("house", "n"): [Sense(9), Sense(9), Sense(9), Sense(0)],
        ("house", "v"): [Sense(0)],
        ("run", "v"): [Sense(1)],
        ("he", "n"): [Sense(0)],
    }

    def synsets(self, word: str, pos: str) -> list[Sense]:
        return self.senses.get((word, pos), [])


def perplexity(sentences: Sequence[str]) -> float | None:
    """Stands in for the language model: every word takes one nat, ``odd`` three."""
    words = [word for text in sentences for word in text.split()]
    return math.exp(sum(3 if w == "odd" else 1 for w in words) / len(words)) if words else None


def as_they_are(pairs: Sequence[tuple[str, str]]) -> dict:
    """Stands in for `same_kind`."""
    return {"pairs": [*pairs]}


@pytest.fixture(scope="module")
def language_model(data_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    small = ("--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16", "--decoder-layers", "1")
    commands.train(
        *(data_dir, folder, "--arch", "transformer_decoder_lm", "--max-update", "30", *small),
        *("--decoder-attention-heads", "2"),
    )
    return folder / "checkpoint_last.pt"


@pytest.fixture
def script(data_dir, text_dir, checkpoint, language_model, capsys, monkeypatch):
    """The script on the tiny models and the test set's lines; what it printed, or its one line."""

    def run(*flags: object, path: object = checkpoint, lm: object = language_model) -> str:
        every = [data_dir, "--path", path, "--lm", lm, "--text", text_dir / "test", "--cpu", *flags]
        monkeypatch.setattr("sys.argv", ["rate_distortion.py", *map(str, every)])
        capsys.readouterr()
        try:
            rate_distortion.main()
        except SystemExit:
            captured = capsys.readouterr()
            assert not captured.out
            return captured.err.splitlines()[-1]
        return capsys.readouterr().out

    return run


def test_figures_are_those_of_evaluate(
    script, data_dir, text_dir, checkpoint, language_model, tmp_path, capsys
):
    out = script("--samples", 3, "--json", tmp_path / "a.json", "--figure", tmp_path / "a.png")
    (row,) = json.loads((tmp_path / "a.json").read_text())["checkpoints"]
    found = {}
    for name, path in (("vat", checkpoint), ("lm", language_model)):
        flags = (str(data_dir), "--path", str(path), "--samples", "3", "--iw-samples", "0")
        assert command_line(["evaluate", *flags, "--json", "--cpu"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    vat = found["vat"]
    assert row["kl"] == pytest.approx(vat["kl"]["per_token"], rel=1e-5)
    assert row["nll_mean"] == pytest.approx(vat["nll_mean"]["per_token"], rel=1e-5)
    assert row["nll_draws"] == pytest.approx(vat["nll_samples"]["per_token"], rel=1e-5)
    assert row["bleu_mean"] == pytest.approx(vat["reconstruction"]["bleu"])
    assert row["exact_match"] == vat["reconstruction"]["exact_match"]
    assert row["ppl_sources"] == pytest.approx(found["lm"]["nll"]["ppl_per_word"], rel=1e-5)
    overrides = "{'report_accuracy': True, 'valid_latents': 'mean'}"
    flags = ("--valid-subset", "test", "--model-overrides", overrides)
    log = commands.validate(data_dir, checkpoint, *flags)
    validated = re.findall(r"\| accuracy ([\d.]+)", log)
    assert 0 < row["accuracy"] < 1 and "same_pos" not in row
    assert 100 * row["accuracy"] == pytest.approx(float(validated[-1]), abs=0.01)
    assert (tmp_path / "a.png").stat().st_size > 5000
    head, line = out.splitlines()[:2]
    assert head.split()[:3] == ["checkpoint", "KL,", "nats"] and str(checkpoint) in line
    assert "substitutions" not in out


def test_the_same_seed_gives_the_same(script, checkpoint, tmp_path):
    flags = ("--samples", 2, "--sentences", 7, "--temperature", 3)
    rows = []
    for seed in (1, 1, 2):
        script(*flags, "--seed", seed, "--max-tokens", 20 * len(rows) + 20, "--json",
               tmp_path / "b.json")  # fmt: skip
        rows.append(json.loads((tmp_path / "b.json").read_text())["checkpoints"][0])
    for key in ("changed", "distinct", "kept", "bleu_draws"):
        assert rows[0][key] == rows[1][key]
    assert rows[0]["ppl_ratio"] == pytest.approx(rows[1]["ppl_ratio"], rel=1e-4)
    assert rows[0]["nll_draws"] != rows[2]["nll_draws"]


def test_shows_every_kth_sentence(script, text_dir):
    out = script("--show", 4, "--samples", 2, "--sentences", 8)
    shown = [line for line in out.split("```")[1].splitlines() if line[:1] not in ("", " ")]
    assert shown == (text_dir / "test").read_text().splitlines()[:16:2][::2]
    assert out.count("    mean: ") == 4


def test_exchanged_words_are_judged(script, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(rate_distortion, "open_wordnet", lambda folder: WordNet())
    (tmp_path / "train").write_text("dog cat run house\n")
    flags = ("--wordnet", tmp_path, "--train-text", tmp_path / "train", "--sentences", 4)
    out = script(*flags, "--json", tmp_path / "c.json")
    assert max(map(len, out.splitlines())) <= max(WIDTH, len(str(checkpoint)) + 20)
    shown = {}
    for block in out.split("\n\n"):  # several tables, since one would be too wide
        heads, cells = (re.split(r"\s{2,}", line.strip()) for line in block.splitlines())
        shown |= dict(zip(heads, cells, strict=True))
    # the toy's words have digits; of nothing exchanged there is no share, so no column
    assert shown["substitutions"] == "0" and "same POS" not in shown
    (figures,) = json.loads((tmp_path / "c.json").read_text())["checkpoints"]
    assert figures["of_all_changed"]["substitutions"] == 0
    assert figures["of_mean"]["changed"] == 1 - figures["exact_match"]


def test_mistakes_are_one_line(script, checkpoint, language_model, tmp_path, monkeypatch):
    assert "--lm" in script(lm=checkpoint) and "has latents" in script(lm=checkpoint)
    assert "which has no latents" in script(path=language_model)
    assert "--samples: must be at least 1, not 0" in script("--samples", 0)
    assert "--sentences: must be at least 1, not 0" in script("--sentences", 0)
    assert "go together" in script("--wordnet", tmp_path)
    wordnet = ("--train-text", tmp_path / "text", "--wordnet", tmp_path)
    assert "data.noun isn't in it" in script(*wordnet)
    for kind in ("data", "index"):
        for pos in ("noun", "verb", "adj", "adv"):
            (tmp_path / f"{kind}.{pos}").touch()
    monkeypatch.setitem(sys.modules, "nltk", None)
    assert "pip install" in script(*wordnet)
    missing = script("--text", tmp_path / "missing")
    assert str(tmp_path / "missing") in missing and "\n" not in missing


def test_draws_that_copy_are_worth_nothing():
    sources = ["a b c", "a odd"]
    found = statistics.draw_figures(sources, [[x, x] for x in sources], perplexity, as_they_are)
    assert (found["changed"], found["distinct"], found["kept"]) == (0, 1, 1)
    assert found["ppl_ratio"] == 1 and found["ppl_ratio_changed"] is None
    assert found["only_substitutions"] is None and found["kept_changed"] is None
    assert found["pairs"] == []


def test_what_draws_change():
    sources = ["a b b c", "a b"]
    draws = [["a b b c", "a b odd c", "a odd c d e"], ["b", "a odd", "a b"]]
    found = statistics.draw_figures(sources, draws, perplexity, as_they_are)
    assert (found["changed"], found["distinct"]) == (4 / 6, 3)
    assert found["kept"] == (4 + 3 + 2 + 1 + 1 + 2) / 18
    assert found["kept_changed"] == (3 + 2 + 1 + 1) / 12
    # 18 words of the draws, three of them odd; 12 of the changed ones
    assert found["ppl_ratio"] == pytest.approx(math.exp((18 + 6) / 18) / math.e)
    assert found["ppl_ratio_changed"] == pytest.approx(math.exp((12 + 6) / 12) / math.e)
    assert found["only_substitutions"] == 2 / 4
    assert found["pairs"] == found["of_all_changed"]["pairs"] == [("b", "odd"), ("b", "odd")]
    draws = [["a b odd c e e"], ["a odd"]]
    found = statistics.draw_figures(sources, draws, perplexity, as_they_are)
    assert found["pairs"] == [("b", "odd")] and len(found["of_all_changed"]["pairs"]) == 2


@pytest.mark.parametrize(
    ("draw", "pairs", "only"),
    [
        ("The dog sat, then ran.", [], False),  # no difference
        ("The cat sat, then ran.", [("dog", "cat")], True),
        ("The dog sat, then sat.", [("ran", "sat")], True),
        ("the dog sat, then ran.", [], False),  # the same word
        ("The dog sat, then ran!", [], False),  # a mark
        ("The 2 sat, then ran.", [], False),  # a number
        ("The old cat sat, then ran.", [], False),  # one for two
        ("A cat sat, then ran.", [], False),  # two for two
        ("The cat sat, then ran away.", [("dog", "cat")], False),
    ],
)
def test_substitutions(draw, pairs, only):
    assert statistics.substitutions("The dog sat, then ran.", draw) == (pairs, only)


def test_words_are_kept_once_each():
    assert statistics.kept_words("a b b c", "b a d b b") == 3
    assert statistics.kept_words("a", "") == 0


def test_random_words_are_of_like_frequency():
    # w0 is the most frequent of 200
    names = ["".join(chr(97 + int(digit)) for digit in f"{n:03}") for n in range(200)]
    words = statistics.Frequencies(" ".join([word] * (200 - n)) for n, word in enumerate(names))
    for word, bin in ((names[3], names[:64]), (names[70], names[64:128]), ("new", names[128:])):
        found = words.like(word, 3000, seed=1, other_than=(word, bin[1].upper()))
        assert set(found) == set(bin) - {word, bin[1]}
        # uniform: no count is far from its expectation
        assert max(Counter(found).values()) < 2 * 3000 / (len(bin) - 2)
        assert found == words.like(word, 3000, seed=1, other_than=(word, bin[1].upper()))
        assert found != words.like(word, 3000, seed=2, other_than=(word, bin[1].upper()))
    with pytest.raises(VATError, match="--train-text"):
        statistics.Frequencies(["1 2 3", ""])


def test_parts_of_speech_and_similarity():
    kinds = statistics.Kinds(WordNet())
    assert kinds.parts_of_speech("House") == {"n", "v"}
    assert kinds.parts_of_speech("he") == {"pronoun"}  # not helium
    assert kinds.parts_of_speech("Claunch") == {"unlisted"}
    assert kinds.same_part_of_speech("house", "run") and not kinds.same_part_of_speech("he", "dog")
    assert kinds.similarity("dog", "cat") == 1 / 3
    assert kinds.similarity("dog", "house") == 1 / 10  # by the first three senses
    assert kinds.similarity("house", "run") == 1 / 2  # as verbs
    assert kinds.similarity("dog", "run") == kinds.similarity("he", "dog") == 0


def test_same_kind_against_random_words():
    kinds = statistics.Kinds(WordNet())
    # the only other words of like frequency
    frequencies = statistics.Frequencies(["dog cat run house"])
    pairs = [("dog", "cat"), ("dogs", "run"), ("he", "dog"), ("Ann", "Bob")]
    found = statistics.same_kind(pairs, kinds, frequencies, seed=1)
    assert (found["substitutions"], found["open_class"]) == (4, 2)
    assert found["same_pos"] == 2 / 4  # cat, and a name for a name
    assert found["similar"] == 1 / 2  # cat is nearer than a mean of run (0) and house (1/10)
    drawn = [
        frequencies.like(new, statistics.RANDOM_WORDS, (1, old, new), other_than=(old, new))
        for old, new in pairs
    ]
    nouns = sum(word != "run" for word in drawn[0] + drawn[1])
    assert found["same_pos_random"] == nouns / (4 * statistics.RANDOM_WORDS)
    assert found["same_pos_random"] < found["same_pos"]
    assert 0 < found["similar_random"] < 1
    assert found == statistics.same_kind(pairs, kinds, frequencies, seed=1)
    nothing = statistics.same_kind([], kinds, frequencies, seed=1)
    assert nothing["same_pos"] is nothing["similar_random"] is None


def test_the_table_has_the_columns_that_are_measured():
    rows = [{"path": "a.pt", "kl": 1.0, "changed": None}, {"path": "b.pt", "kl": 2.0, "changed": 1}]
    lines = table(rows, rate_distortion.COLUMNS).splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines] == [
        ["checkpoint", "KL, nats", "changed"],
        [":-------------", "-----------:", "----------:"],
        ["a.pt", "1.000", MISSING],
        ["b.pt", "2.000", "1.000"],
    ]
