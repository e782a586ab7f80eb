"""``fairseq-vat evaluate`` on checkpoints of each kind."""

from __future__ import annotations

import json
import math
import re

import pytest
import sacrebleu
import torch
from helpers import commands

from fairseq_vat.cli import main as cli
from fairseq_vat.cli.evaluation_table import evaluation_tables
from fairseq_vat.cli.tables import MISSING, WIDTH
from fairseq_vat.evaluation.evaluate import evaluate as evaluate_model
from fairseq_vat.hub.loading import load_model

SMALL = (
    *("--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64", "--latent-dim", "8"),
    *("--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "64", "--dropout", "0"),
)
QUICK = ("--iw-samples", "4", "--beam", "2", "--cpu")


@pytest.fixture
def evaluate(capsys):
    def run(data, checkpoint, *flags):
        capsys.readouterr()
        try:
            status = cli.main(["evaluate", str(data), "--path", str(checkpoint), *QUICK, *flags])
        except SystemExit as left:  # a wrong flag
            status = left.code
            assert status == 2
        captured = capsys.readouterr()
        if status:
            assert not captured.out
            assert captured.err.count("\n") == 1
            return captured.err
        return json.loads(captured.out) if "--json" in flags else captured.out

    return run


@pytest.fixture(scope="module")
def sentence_level(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    flags = ("--arch", "vae_transformer", "--kl-weight", "0.01", "--max-update", "25")
    commands.train(data_dir, folder, *flags, *SMALL)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def language_model(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    commands.train(
        *(data_dir, folder, "--arch", "transformer_decoder_lm", "--max-update", "5", *SMALL)
    )
    return folder / "checkpoint_last.pt"


def _assert_same(one, other, where=""):
    """Equal up to the last digits of single precision."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_same(one[key], other[key], f"{where}.{key}")
    else:
        expected = pytest.approx(other, rel=1e-4, abs=1e-5) if isinstance(one, float) else other
        assert one == expected, where


def test_token_level_agrees_with_validation(data_dir, checkpoint, evaluate):
    found = evaluate(data_dir, checkpoint, "--json", "--seed", "0")
    log = commands.validate(data_dir, checkpoint, "--valid-subset", "test")
    logged = {name: float(x) for name, x in commands.stats(log, "test")[-1].items()}
    close = {"rel": 1e-3, "abs": 6e-4}  # it logs three digits
    assert found["nll_samples"]["bits_per_token"] == pytest.approx(logged["nll_loss"], **close)
    assert found["kl"]["bits_per_token"] == pytest.approx(logged["kl_loss"], **close)
    assert found["neg_elbo"]["ppl_per_token"] == pytest.approx(logged["elbo_ppl"], rel=2e-3)
    assert found["kl_nats"] == pytest.approx(logged["kl_nats"], **close)
    assert found["active_units"]["count"] == logged["active_units"]
    assert found["latent_gain"]["bits_per_token"] == pytest.approx(logged["latent_gain"], **close)
    gain = found["nll_prior"]["per_token"] - found["nll_samples"]["per_token"]
    assert found["latent_gain"]["per_token"] == pytest.approx(gain)
    assert found["latent_gain"]["share"] > 0.1
    assert (found["latent_level"], found["updates"], found["prior_std"]) == ("token", 150, 0.4)
    assert found["latents"] == found["tokens"] + found["sentences"]  # a start token each
    assert found["words"] == found["tokens"] - found["sentences"]
    assert found["nll_mean"]["bits_per_token"] < found["nll_samples"]["bits_per_token"]
    assert (
        found["mi"]["paired"] <= found["mi"]["ceiling"] == pytest.approx(math.log(found["latents"]))
    )
    assert found["marginal_kl"] == pytest.approx(found["kl_nats"] - found["mi"]["paired"])
    assert found["warning"] is None and found["nll"] is None and found["cut"] == 0


@pytest.mark.parametrize("model", ["checkpoint", "sentence_level", "language_model"])
def test_no_figure_depends_on_batching(data_dir, model, evaluate, request):
    path = request.getfixturevalue(model)
    whole, alone, some = (
        evaluate(data_dir, path, "--json", "--samples", "2", "--bleu-sentences", "6", *flags)
        for flags in ((), ("--batch-size", "1"), ("--max-tokens", "25"))
    )
    _assert_same(alone, whole)
    _assert_same(some, whole)


def test_bleu_is_that_of_fairseq_generate(data_dir, text_dir, checkpoint, evaluate):
    found = evaluate(data_dir, checkpoint, "--json")["reconstruction"]
    # ten more than the longest sentence, its end counted
    sentences = (text_dir / "test").read_text(encoding="utf-8").splitlines()
    longest = str(max(len(line.split()) for line in sentences) + 11)
    generated = commands.hypotheses(commands.generate(data_dir, checkpoint, "--max-len-b", longest))
    outputs = [generated[number][0] for number in range(20)]
    bleu = sacrebleu.corpus_bleu(outputs, [sentences], tokenize="none", force=True).score
    assert found["bleu"] == pytest.approx(bleu) and bleu > 0
    equal = sum(output == line for output, line in zip(outputs, sentences, strict=True))
    assert found["exact_match"] == equal / 20
    assert "tok:none" in found["signature"]


def test_sentence_level(data_dir, sentence_level, evaluate):
    found = evaluate(data_dir, sentence_level, "--json", "--iw-samples", "30")
    assert found["latent_level"] == "sentence"
    assert found["latents"] == found["sentences"] == 20
    assert found["kl_nats"] == pytest.approx(found["kl"]["per_sentence"])
    assert found["mi"]["ceiling"] == pytest.approx(math.log(20))
    assert found["mi_batches"]["paired"] == pytest.approx(found["mi"]["paired"])  # one batch, of 20
    assert 1 <= found["ess"]["min"] <= found["ess"]["mean"] <= 30
    assert found["iw_nll"]["per_sentence"] < found["neg_elbo"]["per_sentence"]
    table = evaluate(data_dir, sentence_level, "--no-bleu")
    assert "a latent of width 8 for each sentence" in table
    assert "ceiling 2.996" in table
    assert "nll, exact" not in table and "nll from the mean" in table
    (kl,) = (line for line in table.splitlines() if line.startswith("KL  "))
    assert kl.split()[-2:] == [MISSING] * 2  # exp(KL) is no perplexity


def test_a_language_model_has_the_columns_that_apply(data_dir, language_model, evaluate):
    found = evaluate(data_dir, language_model, "--json")
    log = commands.validate(data_dir, language_model, "--valid-subset", "test")
    logged = float(commands.stats(log, "test")[-1]["nll_loss"])
    assert found["nll"]["bits_per_token"] == pytest.approx(logged, abs=6e-4)
    assert found["nll"]["ppl_per_word"] == pytest.approx(math.exp(found["nll"]["per_word"]))
    for name in ("nll_mean", "nll_samples", "kl", "neg_elbo", "iw_nll", "ess", "mi", "latents"):
        assert found[name] is None
    assert found["reconstruction"] is found["warning"] is found["latent_level"] is None
    table = evaluate(data_dir, language_model)
    assert "a language model, no latents" in table
    assert "nll, exact" in table and "active units" not in table


def test_a_collapsed_model_is_told(data_dir, tmp_path, evaluate):
    flags = ("--arch", "vae_transformer", "--kl-weight", "20", "--max-update", "40", *SMALL)
    commands.train(data_dir, tmp_path, *flags)
    table = evaluate(data_dir, tmp_path / "checkpoint_last.pt", "--no-bleu")
    (line,) = (line for line in table.splitlines() if line.startswith("warning: "))
    assert "collapsed" in line and "--kl-annealing" in line
    (gain,) = (line for line in table.splitlines() if line.startswith("gain of own latents"))
    assert abs(float(gain.partition("a token, ")[2].partition("% of the nll from the")[0])) < 1


def test_latents_that_tell_sentences_apart_but_not_the_decoder(
    data_dir, sentence_level, tmp_path, evaluate
):
    """KL, mutual information and units of a live model: only the nll shows the collapse."""
    state = torch.load(sentence_level, weights_only=True)
    for name, x in state["model"].items():
        if "encoder_attn.out_proj" in name:  # the decoder's only way to the latents
            x.zero_()
    deaf = tmp_path / "deaf.pt"
    torch.save(state, deaf)
    found = evaluate(data_dir, deaf, "--json")
    assert found["kl_nats"] > 1 and found["mi"]["paired"] > 0.5
    assert found["latent_gain"]["share"] == pytest.approx(0, abs=1e-6)
    assert "own latents lower the nll by 0.0%" in found["warning"]
    assert evaluate(data_dir, sentence_level, "--json")["mi"] == found["mi"]


def test_the_spread_of_mutual_information_is_shown(data_dir, checkpoint, evaluate):
    found = evaluate(data_dir, checkpoint, "--json", "--mi-draws", "3", "--no-bleu")
    mi = found["mi"]
    assert mi["draws"] == 3 and mi["unpaired_std"] > mi["paired_std"] > 0
    table = evaluate(data_dir, checkpoint, "--mi-draws", "3", "--no-bleu")
    assert f"{mi['paired']:.3f} ± {mi['paired_std']:.3f}  unpaired {mi['unpaired']:.3f} ±" in table
    assert "± over 3 draws" in table
    alone = evaluate(data_dir, checkpoint, "--json", "--mi-draws", "1", "--no-bleu")["mi"]
    assert alone["paired_std"] is None
    assert "±" not in evaluate(data_dir, checkpoint, "--mi-draws", "1", "--no-bleu")


def test_draws_and_sentences_are_what_was_asked_for(data_dir, checkpoint, evaluate):
    found = evaluate(data_dir, checkpoint, "--json", "--sentences", "7", "--bleu-sentences", "3")
    assert found["sentences"] == 7 and found["reconstruction"]["sentences"] == 3
    rest = ("--json", "--sentences", "7", "--no-bleu", "--iw-samples", "0")
    same, other = (evaluate(data_dir, checkpoint, *rest, "--seed", seed) for seed in ("1", "2"))
    assert same["nll_samples"] == found["nll_samples"] != other["nll_samples"]
    assert same["nll_mean"] == other["nll_mean"]
    assert same["iw_nll"] is same["ess"] is same["reconstruction"] is None
    wider = evaluate(data_dir, checkpoint, *rest, "--prior-std", "0.8")
    assert wider["prior_std"] == 0.8 and wider["kl_nats"] != same["kl_nats"]


def test_the_command_is_the_function(data_dir, checkpoint, evaluate):
    found = evaluate(data_dir, checkpoint, "--json", "--sentences", "7", "--batch-size", "3")
    loaded = load_model(checkpoint, data_dir, "cpu")
    same = evaluate_model(loaded, "test", first=7, batch_size=3, beam=2, iw_samples=4)
    assert found == {"checkpoint": str(checkpoint), "data": str(data_dir), **same}


def test_formats(data_dir, checkpoint, evaluate):
    few = ("--sentences", "3", "--no-bleu")
    rows = evaluate(data_dir, checkpoint, *few, "--format", "csv").splitlines()
    assert rows[0] == ",nats/sentence,nats/word,nats/token,ppl/word,ppl/token"
    found = evaluate(data_dir, checkpoint, *few, "--json")
    (kl,) = (row.split(",") for row in rows if row.startswith("KL,"))
    assert kl[1] == f"{found['kl']['per_sentence']:.3f}" and kl[-1] == MISSING
    github = evaluate(data_dir, checkpoint, *few, "--format", "github")
    assert "| nll from the mean " in github and "3 sentences" in github.partition("|")[0]


def test_tables_are_no_wider_than_a_terminal(data_dir, checkpoint, evaluate):
    """With figures as large models and data sets have them."""
    found = evaluate(data_dir, checkpoint, "--json", "--mi-draws", "2")
    for name in ("nll_mean", "nll_samples", "nll_prior", "kl", "neg_elbo", "iw_nll"):
        found[name] = {key: value and 1e3 * value for key, value in found[name].items()}
        found[name] |= {"per_sentence": 12345.678} | {
            key: 999999.0 for key in found[name] if key.startswith("ppl")
        }
    found |= {"samples": 100, "iw_samples": 1000, "latents": 12_345_678, "kl_nats": 123.456}
    for name in ("mi", "mi_batches"):
        found[name] |= {"paired": 12.3456, "paired_std": 10.01, "unpaired": 12.3, "batches": 9999}
        found[name] |= {"unpaired_std": 10.123, "ceiling": 16.329, "draws": 100}
    found["active_units"] |= {"count": 1024, "of": 1024}
    found["reconstruction"] |= {"bleu": 100.0, "sentences": 12_345_678}
    blocks = evaluation_tables(found, "plain").split("\n\n")[1:]
    assert len(blocks) == 4
    for block in blocks:
        assert max(map(len, block.splitlines())) <= WIDTH
    assert "nats" in blocks[1].splitlines()[0] and "bits" not in "".join(blocks)


def test_bleu_of_pieces_is_called_so(text_dir, tmp_path, evaluate):
    """Where nobody joins them."""
    for split in ("train", "valid", "test"):
        lines = (text_dir / split).read_text(encoding="utf-8").splitlines()
        text = "\n".join(re.sub(r"(\S)(\S+)", "\u2581\\1 \\2", line) for line in lines)
        (tmp_path / split).write_text(text + "\n", encoding="utf-8")
    splits = {split: tmp_path / split for split in ("train", "valid", "test")}
    data = commands.preprocess(tmp_path / "bin", **splits)
    commands.train(data, tmp_path, "--max-update", "2")
    path = tmp_path / "checkpoint_last.pt"
    few = ("--sentences", "3")
    assert "bleu" in evaluate(data, path, *few, "--json")["reconstruction"]
    found = evaluate(data, path, *few, "--json", "--remove-bpe", "none")["reconstruction"]
    assert "bleu_of_pieces" in found and "bleu" not in found
    assert "\nBLEU of pieces " in evaluate(data, path, *few, "--remove-bpe", "none")


def test_cut_sentences_are_counted(data_dir, tmp_path, evaluate):
    flags = ("--max-update", "1", "--max-source-positions", "8", "--max-target-positions", "8")
    commands.train(data_dir, tmp_path, *flags, "--truncate")
    path = tmp_path / "checkpoint_last.pt"
    found = evaluate(data_dir, path, "--json", "--no-bleu")
    assert 0 < found["cut"] < 20
    table = evaluate(data_dir, path, "--no-bleu")
    assert f"{found['cut']} sentences cut to the model's positions" in table


def test_sentences_too_long_are_refused(data_dir, tmp_path, evaluate):
    flags = ("--max-update", "1", "--max-source-positions", "8", "--max-target-positions", "8")
    commands.train(
        *(
            data_dir,
            tmp_path,
            *flags,
            "--skip-invalid-size-inputs-valid-test",
            "--disable-validation",
        )
    )
    path = tmp_path / "checkpoint_last.pt"
    assert "give --truncate" in evaluate(data_dir, path)
    assert "sentences cut" in evaluate(data_dir, path, "--truncate", "--no-bleu")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--iw-samples", "-1"), "argument --iw-samples: must be at least 0, not -1"),
        (("--samples", "0"), "argument --samples: must be at least 1, not 0"),
        (("--mi-draws", "0"), "argument --mi-draws: must be at least 1, not 0"),
        (("--mi-batch", "0"), "argument --mi-batch: must be at least 1, not 0"),
        (("--beam", "0"), "argument --beam: must be at least 1, not 0"),
        (("--sentences", "0"), "argument --sentences: must be at least 1, not 0"),
        (("--prior-std", "0"), "argument --prior-std: must be above 0, not 0"),
        (("--prior-std", "nan"), "argument --prior-std: must be above 0, not nan"),
        (("--max-tokens", "3"), "--max-tokens 3: the longest sentence has"),
        (("--gen-subset", "dev"), "has test, train, valid"),
    ],
)
def test_mistakes_in_flags_are_one_line(data_dir, checkpoint, evaluate, flags, message):
    assert message in evaluate(data_dir, checkpoint, *flags)


def test_what_is_not_finite_is_told(data_dir, checkpoint, tmp_path, evaluate):
    """Of the checkpoint, and of latents that overflow in it."""
    state = torch.load(checkpoint, weights_only=True)
    mean = state["model"]["encoder.head.mean.weight"]
    for value, message in (
        (math.nan, "encoder.head.mean.weight holds values that aren't finite"),
        (3e38, "the checkpoint's latents are not finite"),
    ):
        mean.fill_(value)
        torch.save(state, tmp_path / "diverged.pt")
        for flags in ((), ("--json", "--no-bleu")):
            assert message in evaluate(data_dir, tmp_path / "diverged.pt", *flags)


def test_mistakes_in_files_are_one_line(data_dir, checkpoint, tmp_path, evaluate):
    assert "doesn't exist" in evaluate(data_dir, tmp_path / "missing.pt")
    no_checkpoint = tmp_path / "text.pt"
    no_checkpoint.write_text("nothing of the kind")
    assert "is refused" in evaluate(data_dir, no_checkpoint)
    other = tmp_path / "other.pt"
    torch.save({"weights": torch.ones(3)}, other)
    assert str(other) in evaluate(data_dir, other)
    (tmp_path / "a").write_text("other words than those\n")
    elsewhere = commands.preprocess(tmp_path / "bin", train=tmp_path / "a", test=tmp_path / "a")
    assert "dictionary" in evaluate(elsewhere, checkpoint)
    assert "doesn't exist" in evaluate(tmp_path / "nowhere", checkpoint)


def test_an_interrupt_leaves_no_half_of_a_table(data_dir, checkpoint, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fairseq_vat.evaluation.evaluate.figures", interrupted)
    capsys.readouterr()
    command = ["evaluate", str(data_dir), "--path", str(checkpoint), *QUICK]
    assert cli.main(command) == 130
    captured = capsys.readouterr()
    assert captured.out == "" and "interrupted" in captured.err
