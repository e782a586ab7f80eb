"""``fairseq-vat evaluate`` and training's validation: the same figures of the same model."""

from __future__ import annotations

import json
from unittest import mock

import pytest
from helpers import commands

from fairseq_vat.cli import main as cli

SMALL = (
    *("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32", "--latent-dim", "6"),
    *("--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "32", "--dropout", "0.1"),
    *("--encoder-layers", "1", "--decoder-layers", "1"),
)
RECURRENT = ("--encoder-hidden-size", "16", "--decoder-hidden-size", "16")
ARCHITECTURES = {
    "vat_transformer_tiny": (),
    "vat_transformer_tiny, no start token": ("--no-start-token",),
    "vae_transformer": SMALL,
    "vae_transformer, token level": (*SMALL, "--latent-level", "token"),
    "vae_lstm": (*SMALL, *RECURRENT),
    "vae_gru": (*SMALL, *RECURRENT),
    "transformer_decoder_lm": SMALL,
    "lstm_decoder_lm": (*SMALL, *RECURRENT),
}
CUT = ("--truncate", "--max-source-positions", "8", "--max-target-positions", "8")
CLOSE = {"rel": 1e-4, "abs": 1e-5}


def _train(data, folder, name, *flags):
    """A few updates; returns the checkpoint and the last validation's figures, not rounded."""
    arch = name.partition(",")[0]
    every = ("--arch", arch, *ARCHITECTURES[name], *flags, "--lr", "0.02", "--max-update", "6")
    with _unrounded():
        log = commands.train(data, folder, *every)
    return folder / "checkpoint_last.pt", _figures(log, "valid")


def _validate(data, checkpoint, split, *flags):
    with _unrounded():
        return _figures(commands.validate(data, checkpoint, "--valid-subset", split, *flags), split)


def _unrounded():
    return mock.patch("fairseq.logging.meters.safe_round", lambda number, digits: float(number))


def _figures(log, split):
    return {name: float(x) for name, x in commands.stats(log, split)[-1].items()}


def _evaluate(capsys, data, checkpoint, split, *flags):
    capsys.readouterr()
    every = ["--gen-subset", split, "--seed", "0", "--no-bleu", "--iw-samples", "0", "--cpu"]
    assert not cli.main(["evaluate", str(data), "--path", str(checkpoint), *every, *flags])
    return capsys.readouterr().out


def _assert_agree(found, logged):
    """Every measure that both have."""
    samples = found["nll_samples"] or found["nll"]
    assert samples["bits_per_token"] == pytest.approx(logged["nll_loss"], **CLOSE)
    assert samples["ppl_per_token"] == pytest.approx(logged["ppl"], **CLOSE)
    if found["latents"] is None:
        assert "kl_loss" not in logged
        assert samples["bits_per_token"] == pytest.approx(logged["loss"], **CLOSE)
        return
    assert found["kl"]["bits_per_token"] == pytest.approx(logged["kl_loss"], **CLOSE)
    assert found["kl_nats"] == pytest.approx(logged["kl_nats"], **CLOSE)
    assert found["neg_elbo"]["bits_per_token"] == pytest.approx(logged["loss"], **CLOSE)
    assert found["neg_elbo"]["ppl_per_token"] == pytest.approx(logged["elbo_ppl"], **CLOSE)
    assert found["active_units"]["count"] == logged["active_units"]


def _words(path):
    return [len(line.split()) for line in path.read_text(encoding="utf-8").splitlines()]


# every length is cut in test_cutting.py; here once for each that counts otherwise
TRUNCATED = ("vat_transformer_tiny, no start token", "vae_transformer", "lstm_decoder_lm")


@pytest.mark.parametrize(
    ("name", "truncate"), [(n, False) for n in ARCHITECTURES] + [(n, True) for n in TRUNCATED]
)
def test_evaluate_agrees_with_validation(data_dir, text_dir, tmp_path, capsys, name, truncate):
    flags = CUT if truncate else ()
    path, in_training = _train(data_dir, tmp_path, name, *flags)
    found = json.loads(_evaluate(capsys, data_dir, path, "valid", "--json"))
    most = (7 if "no start token" in name else 6) if truncate else 99
    words = _words(text_dir / "valid")
    assert found["sentences"] == len(words) and found["blank"] == 0
    assert found["tokens"] == sum(min(n, most) + 1 for n in words)
    assert found["cut"] == sum(n > most for n in words)
    assert (found["cut"] > 0) == truncate
    _assert_agree(found, in_training)
    again = _validate(data_dir, path, "valid", *flags)
    _assert_agree(found, again)
    if found["latents"] is None:
        return
    per_sentence = 1 if found["latent_level"] == "sentence" else None
    start = int("no start token" not in name)
    assert found["latents"] == sum(per_sentence or min(n, most) + 1 + start for n in words)
    overrides = ("--model-overrides", "{'valid_latents': 'mean'}")
    mean = _validate(data_dir, path, "valid", *overrides, *flags)
    assert found["nll_mean"]["bits_per_token"] == pytest.approx(mean["nll_loss"], **CLOSE)
    assert found["nll_mean"]["bits_per_token"] != pytest.approx(in_training["nll_loss"], **CLOSE)


@pytest.fixture(scope="module")
def with_blanks(text_dir, tmp_path_factory):
    """Data with blank lines in `test`; `valid` is without them, `valid1` nothing else."""
    folder = tmp_path_factory.mktemp("blanks")
    lines = (text_dir / "test").read_text(encoding="utf-8").splitlines()
    blanked = ["", lines[0], "", "   ", *lines[1:], ""]
    (folder / "blanked").write_text("\n".join(blanked) + "\n", encoding="utf-8")
    (folder / "blank").write_text("\n\n\n", encoding="utf-8")
    return commands.preprocess(
        folder / "bin",
        train=text_dir / "train",
        valid=f"{text_dir / 'test'},{folder / 'blank'}",
        test=folder / "blanked",
    )


@pytest.mark.parametrize("name", ["vat_transformer_tiny", "vae_lstm", "lstm_decoder_lm"])
def test_blank_lines_are_left_out(with_blanks, tmp_path, capsys, name):
    path, _ = _train(with_blanks, tmp_path, name, "--ignore-unused-valid-subsets")
    found = json.loads(_evaluate(capsys, with_blanks, path, "test", "--json"))
    plain = json.loads(_evaluate(capsys, with_blanks, path, "valid", "--json"))
    assert (found.pop("blank"), plain.pop("blank")) == (4, 0)
    for figures in (found, plain):
        del figures["subset"]
    _assert_same(found, plain)
    first = json.loads(_evaluate(capsys, with_blanks, path, "test", "--json", "--sentences", "2"))
    assert (first["sentences"], first["blank"]) == (2, 3)
    assert "4 blank lines left out" in _evaluate(capsys, with_blanks, path, "test")
    # validation keeps them: what it has more is what it has of blank lines alone
    tokens, blanks = plain["tokens"], 4
    whole, alone = (_validate(with_blanks, path, split) for split in ("test", "valid1"))
    summed = {"nll_loss": plain["nll_samples"] or plain["nll"], "kl_loss": plain["kl"]}
    for key, figure in summed.items():
        if figure is not None:
            expected = figure["bits_per_token"] * tokens + alone[key] * blanks
            assert whole[key] * (tokens + blanks) == pytest.approx(expected, **CLOSE)
    assert cli.main(["evaluate", str(with_blanks), "--path", str(path), "--gen-subset", "valid1"])
    assert "--gen-subset valid1: it has nothing but blank lines" in capsys.readouterr().err


def _assert_same(one, other):
    """Equal, but for the last digits of single precision."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_same(one[key], other[key])
    else:
        assert one == (pytest.approx(other, rel=1e-5) if isinstance(one, float) else other)
