"""Isotropy of a model: whose words are measured, the subcommand, and the log of a training."""

from __future__ import annotations

import os
import re

import pytest
import torch
from fairseq.logging import metrics
from helpers import commands
from helpers.configs import composed
from helpers.models import batch, build
from helpers.oracle import self_similarity
from helpers.text import WORDS, sentences

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.representations import (
    choose_sentences,
    measure_isotropy,
    word_representations,
)
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import load_model
from fairseq_vat.measures.isotropy import (
    intra_sentence_similarity,
    mean_cosine,
    random_words,
    unit_vectors,
    words_of,
)

TEXT = [*sentences(60, seed=5), "w1 what w2 ever", "", "w3 whatever"]
MEASURES = ("random_cosine", "self_similarity", "intra_sentence_similarity", "iso_score")
SMALL = ("--encoder-embed-dim", "16", "--decoder-embed-dim", "16", "--latent-dim", "8")
RECURRENT = ("--arch", "vae_lstm", "--encoder-hidden-size", "16", "--decoder-hidden-size", "16")


def untrained(data_dir, *flags):
    task, model, _ = build(data_dir, *flags)
    return VATHubInterface(None, task, model)


def whole(vat, text=TEXT):
    """All words as one batch, in the order of the text."""
    batches = list(word_representations(vat, text))
    joined = [torch.cat(parts) for parts in zip(*(b[1:] for b in batches), strict=True)]
    layers = [torch.cat(parts) for parts in zip(*(b.layers for b in batches), strict=True)]
    order = joined[2].argsort(stable=True)
    return [x[order] for x in layers], *(x[order] for x in joined)


# --- which words, and what represents them ---------------------------------------------------


def test_words_are_the_pieces_between_start_and_end(vat):
    layers, latents, types, where, random = whole(vat)
    dictionary = vat.task.source_dictionary
    said = [dictionary.index(word) for sentence in TEXT for word in sentence.split()]
    assert types.tolist() == said
    numbers = [number for number, sentence in enumerate(TEXT) for _ in sentence.split()]
    assert where.tolist() == numbers
    # one random word of each sentence that has one
    assert where[random].tolist() == sorted(set(numbers))
    assert len(layers) == vat.model.cfg.encoder.layers + 1
    # the latents are those of encode, without the start token's and the end's
    mean, _, mask = vat.encode(TEXT)
    inner = [row[keep][1:-1] for row, keep in zip(mean, mask, strict=True)]
    torch.testing.assert_close(latents, torch.cat(inner), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize(
    "flags", [(), ("--encoder-normalize-before",)], ids=["post-norm", "pre-norm"]
)
def test_layers_from_the_embeddings_to_what_latents_are_made_of(flags, data_dir):
    vat = untrained(data_dir, *flags)
    layers, latents, types, where, _ = whole(vat)
    encoder = vat.model.encoder
    with torch.no_grad():
        torch.testing.assert_close(encoder.head(layers[-1]).mean, latents, atol=1e-5, rtol=1e-4)
    # embeddings know no context: the same word at the same place is the same vector
    place = torch.cat(
        [torch.arange(int(n)) for n in where.unique_consecutive(return_counts=True)[1]]
    )
    same = (types == types[0]) & (place == 0)
    assert same.sum() > 1
    spread = [float((x[same] - x[0]).abs().max()) for x in layers]
    assert spread[0] < 1e-5 < 1e-2 < spread[1]


def test_a_recurrent_encoder_and_a_latent_for_each_sentence(data_dir):
    vat = untrained(data_dir, *RECURRENT, "--latent-dim", "8")
    (some,) = word_representations(vat, ["w1 w2 w3", "", "w1 w5"])
    assert [len(x) for x in (*some.layers, some.latents, some.types)] == [5, 2, 5]
    found = measure_isotropy(vat, TEXT)
    assert [layer["layer"] for layer in found["layers"]] == [2]
    assert all(found["layers"][0][name] is not None for name in MEASURES)
    latents = found["latents"]
    assert latents["self_similarity"] is latents["intra_sentence_similarity"] is None
    assert found["words_of"] == "layer 2"
    # each sentence's latent is one of the random ones
    mean = vat.encode([sentence for sentence in TEXT if sentence]).mean[:, 0]
    expected = mean_cosine(len(mean), unit_vectors(mean).sum(dim=0))
    assert latents["random_cosine"] == pytest.approx(expected, abs=1e-6)


def test_the_lot_belongs_to_the_sentence(vat):
    dictionary = vat.task.source_dictionary
    samples = [s["net_input"]["src_tokens"] for s in vat.batches(sentences(300, 8))]
    tokens = samples[0]
    chosen = random_words(tokens, dictionary, seed=1)
    assert (chosen.sum(dim=1) == 1).all()
    assert not (chosen & ~words_of(tokens, dictionary)).any()
    padded = torch.nn.functional.pad(tokens[3:5], (0, 6), value=dictionary.pad())
    assert torch.equal(random_words(padded, dictionary, 1)[:, : tokens.size(1)], chosen[3:5])
    assert not torch.equal(random_words(tokens, dictionary, seed=2), chosen)
    # all places come up
    assert len(chosen.nonzero()[:, 1].unique()) == 9
    empty = torch.tensor([[dictionary.bos(), dictionary.eos()]])
    assert not random_words(empty, dictionary, 1).any()


def test_chosen_sentences():
    lines = [f"a{n % 500} b" for n in range(1500)] + ["", "  ", "a3\tb"]
    chosen, count = choose_sentences(lines, 50, seed=1)
    assert count == len(lines)
    assert len(set(chosen)) == len(chosen) == 50
    assert choose_sentences(reversed(lines), 50, seed=1)[0] == chosen
    assert set(chosen) != set(choose_sentences(lines, 50, seed=2)[0])
    assert set(choose_sentences(lines, 10, seed=1)[0]) < set(chosen)
    assert sorted(choose_sentences(lines, 10_000, seed=1)[0]) == sorted(set(lines[:500]))


def test_measures_are_those_of_the_words(vat):
    found = measure_isotropy(vat, [*TEXT, *TEXT])
    assert (found["lines"], found["sentences"]) == (2 * len(TEXT), len(TEXT) - 1)
    layers, latents, types, where, random = whole(vat)
    known = types.ne(vat.task.source_dictionary.unk())
    assert found["tokens"] == len(types)
    assert found["unknown_share"] == pytest.approx(3 / len(types))
    for vectors, figures in zip(
        (*layers, latents), (*found["layers"], found["latents"]), strict=True
    ):
        units = unit_vectors(vectors)[random]
        expected = {
            "random_cosine": mean_cosine(len(units), units.sum(dim=0)),
            "self_similarity": self_similarity(vectors[known], types[known], where[known]).mean(),
            "intra_sentence_similarity": float(intra_sentence_similarity(vectors, where).mean()),
        }
        assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    words = found["words"]
    assert 1 < len(words) <= 20
    similarities = [word["self_similarity"] for word in words]
    assert similarities == sorted(similarities)
    for word in words:
        assert word["word"] in WORDS
        assert word["sentences"] == sum(word["word"] in line.split() for line in TEXT) >= 5
        assert word["occurrences"] == sum(line.split().count(word["word"]) for line in TEXT)


def test_batches_do_not_matter(vat):
    found = measure_isotropy(vat, TEXT)
    small = VATHubInterface(vat.cfg, vat.task, vat.model, max_tokens=20)
    other = measure_isotropy(small, reversed(TEXT))
    assert other["latents"] == pytest.approx(found["latents"], abs=1e-5)
    assert [word["word"] for word in other["words"]] == [word["word"] for word in found["words"]]


# --- the subcommand --------------------------------------------------------------------------


@pytest.fixture
def isotropy(subcommand):
    return subcommand("isotropy", "--cpu")


@pytest.fixture
def pairs(tmp_path):
    """An STS folder and a text of the same sentences."""
    folder = tmp_path / "sts"
    folder.mkdir()
    known = [line for line in TEXT if line]
    for name, part in (("one", known[:30]), ("two", known[30:])):
        lines = [f"2.5\t{line}\t{other}\n" for line, other in zip(part, part[::-1], strict=True)]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "text").write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    return folder, tmp_path / "text"


def test_text_and_pairs(isotropy, pairs, checkpoint):
    folder, text = pairs
    found = isotropy("--text", text, "--json")
    assert found["checkpoint"] == str(checkpoint)
    assert found["updates"] == 150
    assert not isotropy.warnings
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2]
    of_pairs = isotropy("--sts", folder, "--json")
    differ = ("text", "lines")  # each sentence of a pair comes twice
    assert {k: v for k, v in of_pairs.items() if k not in differ} == {
        k: v for k, v in found.items() if k not in differ
    }
    few = isotropy("--text", text, text, "--sentences", "7", "--words", "3", "--json")
    assert (few["lines"], few["sentences"]) == (2 * len(TEXT) - 2, 7)
    assert len(few["words"]) <= 3

    table = isotropy("--text", text)
    rows = {line[:12].strip(): line[12:].split() for line in table.splitlines()}
    assert "least self-similarity (latents)" in table
    for title, figures in (
        ("embeddings", found["layers"][0]),
        ("layer 2", found["layers"][2]),
        ("latents", found["latents"]),
    ):
        assert rows[title] == [f"{figures[name]:.3f}" for name in MEASURES]
    least = found["words"][0]
    figures = (f"{least['self_similarity']:.3f}", least["occurrences"], least["sentences"])
    assert rows[least["word"]] == [str(figure) for figure in figures]


def test_a_pipe_is_read_whole(isotropy, pairs):
    reading, writing = os.pipe()
    os.write(writing, pairs[1].read_bytes())
    os.close(writing)
    piped = isotropy("--text", f"/dev/fd/{reading}", "--json")
    os.close(reading)
    assert piped["lines"] == isotropy("--text", pairs[1], "--json")["lines"]


def test_what_is_wrong_is_named(isotropy, pairs, tmp_path):
    folder, text = pairs
    (tmp_path / "empty").write_text("\n\n", encoding="utf-8")
    (tmp_path / "none").mkdir()
    assert "none holds a word" in isotropy("--text", tmp_path / "empty")
    assert "No such file" in isotropy("--text", tmp_path / "missing")
    assert "has no .tsv file" in isotropy("--sts", tmp_path / "none")
    assert re.search(r"text:1: no TAB; each line must be score", isotropy("--sts", text))
    for flag, least, wrong in (("--sentences", 1, 0), ("--words", 0, -1)):
        message = f"argument {flag}: must be at least {least}, not {wrong}"
        assert message in isotropy("--text", text, flag, wrong)
    with (folder / "two.tsv").open("a", encoding="utf-8") as file:
        file.write("3\tonly one\n")
    assert re.search(r"two\.tsv:\d+: 2 columns", isotropy("--sts", folder))
    (tmp_path / "strange").write_text("nothing is known\n", encoding="utf-8")
    isotropy("--text", tmp_path / "strange")
    assert "100% of the pieces in" in isotropy.warnings


# --- in training -----------------------------------------------------------------------------

LOGGED = {
    "random_cosine": "isotropy_random_cosine",
    "intra_sentence_similarity": "isotropy_intra_sentence_similarity",
    "iso_score": "isotropy_iso_score",
}


def test_a_training_logs_isotropy(data_dir, text_dir, tmp_path):
    flags = ("--max-update", "3", "--max-tokens", "100", "--log-isotropy", "15")
    (figures,) = commands.stats(commands.train(data_dir, tmp_path, *flags))
    loaded = load_model(tmp_path / "checkpoint_last.pt", data_dir, "cpu")
    first = (text_dir / "valid").read_text(encoding="utf-8").splitlines()[:15]
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    expected = measure_isotropy(vat, first)["latents"]
    for name, logged in LOGGED.items():
        assert float(figures[logged]) == pytest.approx(expected[name], abs=2e-4), name


@pytest.mark.parametrize("flags", [(), (*RECURRENT,)], ids=["token", "sentence"])
def test_sums_of_batches(flags, data_dir):
    """What is logged is the same in however many batches, and all of these have the same sums."""
    task, model, criterion = build(data_dir, *flags, "--log-isotropy", "12")

    def measured(*parts):
        logs = [task.valid_step(batch(task, list(rows)), model, criterion)[2] for rows in parts]
        with metrics.aggregate(new_root=True) as found:
            for log in logs:  # as fairseq does in training
                task.reduce_metrics([log], criterion)
        with metrics.aggregate(new_root=True) as at_once:  # and in fairseq-validate
            task.reduce_metrics(logs, criterion)
        assert len({frozenset(log) for log in logs}) == 1
        names = [name for name in found.get_smoothed_values() if name.startswith("isotropy")]
        assert names == [name for name in at_once.get_smoothed_values() if "isotropy" in name]
        return {name: float(at_once.get_smoothed_value(name)) for name in names}, {
            name: float(found.get_smoothed_value(name)) for name in names
        }

    one, other = measured(range(20)), measured(range(18, 20), range(7), range(7, 18))
    expected = set(LOGGED.values())
    if flags:  # a latent for each sentence has no intra-sentence similarity
        expected.remove("isotropy_intra_sentence_similarity")
    for found in (*one, *other):
        assert set(found) == expected
        assert found == pytest.approx(one[0], abs=2e-4)
    nothing = measured(range(15, 20))[0]  # none of the first twelve
    assert all(value != value for value in nothing.values())


def test_off_by_default_and_refused(data_dir):
    task, model, criterion = build(data_dir)
    log = task.valid_step(batch(task, [0, 1]), model, criterion)[2]
    assert not any("isotropy" in name for name in log)
    with pytest.raises(VATError, match="--log-isotropy needs a model with latents"):
        build(data_dir, "--arch", "gru_decoder_lm", "--log-isotropy", "5")
    with pytest.raises(VATError, match="--log-isotropy must be a number of sentences"):
        build(data_dir, "--log-isotropy", "-5")


def test_hydra_takes_the_flag():
    assert composed("demo", "task.data=d", "+task.log_isotropy=7").task.log_isotropy == 7
