"""scripts/independent_estimator.py, which shares no code with the package, and `evaluate` agree."""

from __future__ import annotations

import contextlib
import io
import json
import math
import statistics
import sys

import pytest
from helpers import commands
from helpers.scripts import SCRIPTS

from fairseq_vat.cli import main as cli

DRAWS = 10
FLAGS = ["--prior-std", "1", "--kl-weight", "0.02", "--lr", "1e-2", "--max-update", "20"]


def ours(data_dir, checkpoint):
    command = ["evaluate", data_dir, "--path", checkpoint, "--no-bleu", "--cpu", "--json"]
    command += ["--samples", DRAWS, "--mi-draws", DRAWS, "--mi-batch", 8, "--iw-samples", DRAWS]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert cli.main([*map(str, command)]) == 0
    return json.loads(output.getvalue())


def theirs(monkeypatch, *arguments):
    import independent_estimator

    monkeypatch.setattr(sys, "argv", ["independent_estimator.py", *map(str, arguments)])
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        independent_estimator.main()
    return json.loads(output.getvalue())


@pytest.mark.parametrize("kind", ["vae_transformer", "vae_lstm", "vae_gru"])
def test_a_vae(kind, data_dir, text_dir, tmp_path, monkeypatch):
    commands.train(data_dir, tmp_path, "--arch", kind, *FLAGS, "--disable-validation")
    checkpoint = tmp_path / "checkpoint_last.pt"
    place = (checkpoint, data_dir / "dict.txt", text_dir / "test")
    found = theirs(monkeypatch, *place, "--samples", DRAWS, "--batch", 8)
    expected = ours(data_dir, checkpoint)
    assert (found["sentences"], found["tokens"]) == (expected["sentences"], expected["tokens"])
    assert found["ppl_of_means"] == pytest.approx(expected["nll_mean"]["ppl_per_token"], rel=1e-5)
    assert found["kl"] == pytest.approx(expected["kl_nats"], rel=1e-4) and found["kl"] > 0.1
    assert found["active_units"] == expected["active_units"]["count"]
    ppl = expected["nll_samples"]["ppl_per_token"]
    close = 4 * math.sqrt(2 / DRAWS)  # standard errors of a difference of two means
    spread = statistics.stdev(found["ppl_of_draws"])
    assert found["ppl"] == pytest.approx(ppl, abs=close * spread)
    assert found["elbo_ppl"] / found["ppl"] == pytest.approx(
        math.exp(found["kl"] * found["sentences"] / found["tokens"])
    )
    assert found["iw_ppl"] < found["elbo_ppl"]
    if kind != "vae_transformer":  # whose weights vary too much, after so few updates
        # without its log K it would be another
        assert found["iw_ppl"] == pytest.approx(expected["iw_nll"]["ppl_per_token"], rel=0.1)
        assert math.exp(math.log(DRAWS) * found["sentences"] / found["tokens"]) > 1.2
    for name, mi in (("mi", expected["mi_batches"]), ("mi_whole", expected["mi"])):
        assert found[name] == pytest.approx(mi["paired"], abs=close * mi["paired_std"])


@pytest.mark.parametrize("kind", ["transformer", "lstm", "gru"])
def test_a_language_model(kind, data_dir, text_dir, tmp_path, monkeypatch):
    flags = ["--arch", f"{kind}_decoder_lm", "--max-update", "3", "--disable-validation"]
    commands.train(data_dir, tmp_path, *flags)
    checkpoint = tmp_path / "checkpoint_last.pt"
    found = theirs(monkeypatch, checkpoint, data_dir / "dict.txt", text_dir / "test")
    expected = ours(data_dir, checkpoint)
    assert found["tokens"] == expected["tokens"]
    assert found["ppl"] == pytest.approx(expected["nll"]["ppl_per_token"], rel=1e-5)


def test_it_imports_nothing_of_what_it_checks(checkpoint, data_dir, text_dir, monkeypatch):
    text = (SCRIPTS / "independent_estimator.py").read_text()
    assert "import fairseq" not in text and "from fairseq" not in text
    place = (checkpoint, data_dir / "dict.txt", text_dir / "test")
    with pytest.raises(SystemExit, match="--prior-std must be 1"):
        theirs(monkeypatch, *place)
