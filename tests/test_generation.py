"""Latent sampling inside fairseq's generate and interactive."""

from __future__ import annotations

import argparse

import pytest
import sacrebleu
from helpers import commands
from helpers.models import batch

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.generation_log import compare_generations, read_generation
from fairseq_vat.tasks.generation import LatentSampling, VariationalSequenceGenerator

SAMPLING = ("--latent-sampling", "--latent-samples", "3", "--latent-temperature", "2")


def test_what_is_decoded_from_the_mean_is_of_its_own_sentence(data_dir, text_dir, checkpoint):
    output = commands.generate(data_dir, checkpoint, "--scoring", "sacrebleu")
    assert "Generate test with beam=2: BLEU" in output
    found = commands.hypotheses(output)
    texts = [found[number][0] for number in range(20)]
    lines = (text_dir / "test").read_text().splitlines()
    others = [*lines[1:], lines[0]]
    own, other = (
        sacrebleu.corpus_bleu(texts, [some], force=True).score for some in (lines, others)
    )
    assert own > 2 * other


def test_k_times_nbest_hypotheses_in_draw_order(data_dir, checkpoint):
    many = commands.hypotheses(commands.generate(data_dir, checkpoint, *SAMPLING, "--nbest", "2"))
    assert {len(found) for found in many.values()} == {6}
    # the first of the three draws is the one that a single draw gives
    one = commands.hypotheses(
        commands.generate(
            data_dir, checkpoint, "--latent-sampling", "--latent-temperature", "2", "--nbest", "2"
        )
    )
    assert {len(found) for found in one.values()} == {2}
    assert all(many[i][:2] == one[i] for i in one)
    # draws differ from each other, and so did the model's answers
    assert any(len(set(found[::2])) > 1 for found in many.values())


def test_each_hypothesis_says_what_it_is_decoded_from(data_dir, checkpoint, tmp_path):
    for folder, flags, latents in (
        ("mean", ("--nbest", "2"), ["mean", "mean"]),
        ("samples", SAMPLING, ["draw 1", "draw 2", "draw 3"]),
    ):
        commands.generate(data_dir, checkpoint, *flags, "--results-path", str(tmp_path / folder))
        sentences = read_generation(tmp_path / folder)
        assert len(sentences) == 20
        assert all(sentence.latents == latents for sentence in sentences)
    found = compare_generations(tmp_path / "mean", tmp_path / "samples")
    assert found["latents"] == {"mean": "mean", "samples": "draws"}


@pytest.mark.parametrize("search", [(), ("--match-source-len",)])
def test_a_draw_ignores_batching(data_dir, checkpoint, search):
    outputs = [
        commands.hypotheses(commands.generate(data_dir, checkpoint, *SAMPLING, *search, *batching))
        for batching in (("--batch-size", "1"), ("--batch-size", "7"), ())
    ]
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.fixture(scope="module")
def drawn(data_dir, checkpoint):
    return commands.hypotheses(commands.generate(data_dir, checkpoint, *SAMPLING))


def test_a_draw_depends_on_the_seed(data_dir, checkpoint, drawn):
    again, other = (
        commands.hypotheses(commands.generate(data_dir, checkpoint, *SAMPLING, *seed))
        for seed in (("--latent-seed", "1"), ("--latent-seed", "2"))
    )
    assert drawn == again != other


def test_generate_and_interactive_agree(data_dir, text_dir, checkpoint, drawn):
    text = (text_dir / "test").read_bytes()
    typed = commands.hypotheses(commands.interactive(data_dir, checkpoint, text, *SAMPLING))
    assert drawn == typed


def test_fairseq_s_sampling_flags_work_with_and_without_latents(data_dir, checkpoint):
    tokens = ("--sampling", "--sampling-topk", "5", "--nbest", "2", "--seed", "4")
    plain = commands.hypotheses(commands.generate(data_dir, checkpoint, *tokens))
    both = commands.hypotheses(commands.generate(data_dir, checkpoint, *tokens, *SAMPLING))
    assert {len(found) for found in plain.values()} == {2}
    assert {len(found) for found in both.values()} == {6}
    for flags in (("--nbest", "2"), (*tokens[:-1], "5")):  # no sampling, another seed
        assert commands.hypotheses(commands.generate(data_dir, checkpoint, *flags)) != plain


def test_the_encoder_runs_once_however_many_draws(data_dir, checkpoint, monkeypatch):
    from fairseq_vat.models.latent_encoder import LatentEncoder

    calls = []
    forward = LatentEncoder.forward
    monkeypatch.setattr(
        LatentEncoder, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
    )
    commands.generate(data_dir, checkpoint, "--latent-sampling", "--latent-samples", "9")
    one_pass = len(calls)
    calls.clear()
    commands.generate(data_dir, checkpoint)
    assert one_pass == len(calls)


def test_many_draws_are_decoded_in_rounds(built_model, monkeypatch):
    task, model = built_model
    sample = batch(task, [0, 1, 2])
    sampling = LatentSampling(samples=5, temperature=2.0)

    def decode():
        generator = VariationalSequenceGenerator(
            [model], task.dictionary, sampling, beam_size=2, max_len_b=15
        )
        found = generator.generate([model], sample)
        return [[h["tokens"].tolist() for h in sentence] for sentence in found]

    whole = decode()
    monkeypatch.setattr("fairseq_vat.tasks.generation.MAX_ROWS", 12)  # two draws at a time
    assert decode() == whole


def test_an_ensemble_of_checkpoints_decodes(data_dir, checkpoint, tmp_path, drawn):
    commands.train(data_dir, tmp_path, "--max-update", "2", "--seed", "9", "--latent-dim", "12")
    both = f"{checkpoint}:{tmp_path / 'checkpoint_last.pt'}"
    assert len(commands.hypotheses(commands.generate(data_dir, both))) == 20
    of_both = commands.hypotheses(commands.generate(data_dir, both, *SAMPLING))
    assert {len(found) for found in of_both.values()} == {3}
    # twice the same model is that model
    twice = f"{checkpoint}:{checkpoint}"
    assert commands.hypotheses(commands.generate(data_dir, twice, *SAMPLING)) == drawn


def test_references_are_scored(data_dir, checkpoint):
    output = commands.generate(data_dir, checkpoint, "--score-reference")
    rows = [line.split("\t") for line in output.splitlines()]
    targets = {row[0][2:]: row[-1] for row in rows if row[0].startswith("T-")}
    assert targets == {row[0][2:]: row[-1] for row in rows if row[0].startswith("H-")}
    assert len(targets) == 20 and "\nI-" not in output


def test_alignments_count_the_words_that_are_printed(data_dir, checkpoint):
    output = commands.generate(data_dir, checkpoint, "--print-alignment", "--beam", "1")
    lines: dict[str, dict[str, str]] = {"S": {}, "A": {}}
    for line in output.splitlines():
        kind, _, number = line.partition("\t")[0].partition("-")
        if kind in lines:
            lines[kind][number] = line.partition("\t")[2]
    for number, source in lines["S"].items():
        places = [int(pair.partition("-")[0]) for pair in lines["A"][number].split()]
        assert places and max(places) < len(source.split())
    assert any(text.startswith("0-0") for text in lines["A"].values())  # a copy


def test_a_language_model_beside(data_dir, checkpoint, tmp_path):
    commands.train(data_dir, tmp_path, "--arch", "transformer_decoder_lm", "--max-update", "2")
    beside = ("--lm-path", str(tmp_path / "checkpoint_last.pt"), "--lm-weight", "0.1")
    found = commands.hypotheses(commands.generate(data_dir, checkpoint, *beside))
    assert len(found) == 20
    assert found != commands.hypotheses(commands.generate(data_dir, checkpoint))
    with pytest.raises(VATError, match="--lm-path needs a language model"):
        commands.generate(data_dir, checkpoint, "--lm-path", str(checkpoint))


def test_the_checkpoint_says_whether_there_is_a_start_token(data_dir, checkpoint, tmp_path):
    commands.train(data_dir, tmp_path, "--max-update", "2", "--no-start-token")
    without = tmp_path / "checkpoint_last.pt"
    told = commands.generate(data_dir, without, "--no-start-token")
    assert commands.hypotheses(commands.generate(data_dir, without)) == commands.hypotheses(told)
    with pytest.raises(VATError, match="ensemble can't mix models"):
        commands.generate(data_dir, f"{checkpoint}:{without}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--latent-samples", "3"), "--latent-samples needs --latent-sampling"),
        (("--latent-temperature", "2"), "--latent-temperature needs --latent-sampling"),
        (("--latent-seed", "2"), "--latent-seed needs --latent-sampling"),
        (("--latent-temperature", "0"), "--latent-temperature must be above 0"),
        (("--latent-sampling", "--latent-temperature", "-1"), "must be above 0, not -1"),
        (("--latent-sampling", "--latent-samples", "0"), "--latent-samples must be at least 1"),
        (("--latent-sampling", "--print-alignment"), "--print-alignment can't be combined"),
        (("--latent-sampling", "--score-reference"), "--score-reference can't be combined"),
        (("--sampling", "--nbest", "2", "--sampling-topk", "9999"), "--sampling-topk 9999: the"),
        (("--match-source-len", "--diverse-beam-groups", "1"), "can't be combined with --diverse"),
        (("--max-len-a", "0.1", "--max-len-b", "0", "--min-len", "9"), "--min-len 9: longer than"),
    ],
)
def test_flags_that_make_no_sense_are_named(data_dir, checkpoint, flags, message):
    with pytest.raises(VATError, match=message):
        commands.generate(data_dir, checkpoint, *flags)


def test_a_model_without_latents_is_refused(built_model):
    task, _ = built_model
    plain = argparse.Namespace(encoder=object())
    with pytest.raises(VATError, match="needs models with latents"):
        VariationalSequenceGenerator([plain], task.dictionary, LatentSampling())


LINES = [b"w1 w2 w3", b"", b"   ", b"qqq zzz", b"w4 \xff\xfe w5", b"w6 \x00 w7\t w8", b"w9 " * 40]


def test_every_kind_of_line_has_its_answer(data_dir, checkpoint, caplog):
    caplog.set_level("WARNING")
    short = ("--max-source-positions", "20")
    output = commands.interactive(data_dir, checkpoint, b"\n".join(LINES) + b"\nw1\n", *short)
    sources = {
        int(line.split("\t")[0][2:]): line.split("\t")[1]
        for line in output.splitlines()
        if line.startswith("S-")
    }
    answers = commands.hypotheses(output)
    assert sorted(answers) == list(range(8))  # one for each line, none skipped
    assert answers[1] == answers[2] == [""]  # empty lines: empty answers
    assert sources[3] == "<unk> <unk>" and "line 4 holds nothing but words unknown" in caplog.text
    assert sources[4] == "w4 <unk> w5"  # bytes that aren't UTF-8 are an unknown character
    assert sources[5] == "w6 w7 w8"  # NUL and tabs are white space
    assert sources[6].split() == ["w9"] * 18  # cut to 20 positions, start and end counted
    assert "line 7 has 40 tokens: cut to the first 18" in caplog.text
    buffered = ("--buffer-size", "16", "--batch-size", "16")
    again = commands.interactive(data_dir, checkpoint, b"\n".join(LINES), *short, *buffered)
    assert {i: a for i, a in answers.items() if i < 7} == commands.hypotheses(again)


def test_interactive_takes_off_a_byte_order_mark(data_dir, checkpoint):
    marked, plain = (
        commands.interactive(data_dir, checkpoint, mark + b"w1 w2\n")
        for mark in (b"\xef\xbb\xbf", b"")
    )
    assert commands.hypotheses(marked) == commands.hypotheses(plain)
    assert "<unk>" not in marked
    with pytest.raises(VATError, match="UTF-16"):
        commands.interactive(data_dir, checkpoint, "w1\n".encode("utf-16"))


def test_interactive_reads_files_that_are_not_utf_8(data_dir, checkpoint, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"w1 \xff\nw2\n")
    output = commands.interactive(data_dir, checkpoint, b"", "--input", str(path))
    assert sorted(commands.hypotheses(output)) == [0, 1]
