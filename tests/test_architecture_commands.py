"""The architectures through fairseq's commands: training, generation, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import commands
from helpers.checkpoints import refused
from helpers.models import batch, build
from helpers.runs import assert_same_end
from helpers.systems import TINY, UNK

from fairseq_vat import plugin
from fairseq_vat.errors import VATError

# What doesn't fit


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--arch vae_lstm --latent-level token",
            "--latent-level token: --decoder-type lstm has no attention .* give --latent-level "
            "sentence",
        ),
        (
            "--arch vae_transformer --decoder-type gru --latent-level token",
            "--latent-level token: --decoder-type gru has no attention",
        ),
        ("--arch vae_transformer --no-start-token", "--no-start-token: .* leave the start token"),
        (
            "--arch vae_lstm --share-all-embeddings --decoder-embed-dim 64",
            "--encoder-embed-dim 128 and --decoder-embed-dim 64 differ",
        ),
        (
            "--arch vae_lstm --share-all-embeddings --decoder-hidden-size 64",
            "--decoder-embed-dim 128 and --decoder-hidden-size 64 differ",
        ),
        ("--arch vae_gru --decoder-hidden-size 0", "--decoder-hidden-size must be at least 1"),
        ("--arch vae_gru --word-dropout 1", "--word-dropout must be from 0 to below 1, not 1"),
        (
            "--arch lstm_decoder_lm --decoder-type gpt2",
            "--encoder-type none: a language model can't have --decoder-type gpt2",
        ),
        ("--arch vae_gpt2", "--decoder-type gpt2 needs --gpt2-dir"),
        ("--arch vae_lstm --dropout 1.5", "--dropout must be from 0 to below 1, not 1.5"),
        (
            "--arch transformer_decoder_lm --cross-self-attention",
            "--encoder-type none: --cross-self-attention needs latents",
        ),
    ],
)
def test_what_does_not_fit_is_named(data_dir: Path, tmp_path: Path, flags: str, message: str):
    with pytest.raises(VATError, match=message):
        commands.train(data_dir, tmp_path / "run", *flags.split())
    assert not list(tmp_path.glob("run/*.pt"))


def test_a_recurrent_encoder_needs_no_start_token(data_dir: Path):
    task, model, criterion = build(data_dir, "--arch", "vae_gru", *TINY, "--no-start-token")
    sample = batch(task, [0, 1])
    assert sample["net_input"]["src_tokens"][0, 0] > UNK
    assert torch.isfinite(criterion(model, sample)[0])


# Through the commands


@pytest.fixture(scope="module")
def runs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints after a few updates."""
    folder = tmp_path_factory.mktemp("architectures")
    for arch in ("vae_transformer", "vae_lstm", "gru_decoder_lm"):
        commands.train(data_dir, folder / arch, "--arch", arch, *TINY, "--max-update", "3")
    return {path.name: path / "checkpoint_last.pt" for path in folder.iterdir()}


@pytest.mark.parametrize("arch", ["vae_transformer", "vae_lstm", "gru_decoder_lm"])
def test_a_checkpoint_generates(runs: dict[str, Path], data_dir: Path, arch: str):
    output = commands.generate(data_dir, runs[arch], "--beam", "3")
    hypotheses = commands.hypotheses(output)
    assert len(hypotheses) == 20 and all(len(found) == 1 for found in hypotheses.values())
    if arch == "gru_decoder_lm":  # it writes what it finds likely, whatever it is given
        assert len({found[0] for found in hypotheses.values()}) == 1
    else:
        sampled = commands.generate(
            *(data_dir, runs[arch], "--latent-sampling", "--latent-samples", "2"),
            *("--latent-temperature", "30"),
        )
        assert all(len(found) == 2 for found in commands.hypotheses(sampled).values())
        assert len({tuple(found) for found in commands.hypotheses(sampled).values()}) > 1
    told = commands.interactive(data_dir, runs[arch], b"w1 w2 w3\n\nw4\n")
    assert len(commands.hypotheses(told)) == 3
    figures = commands.stats(commands.validate(data_dir, runs[arch]))[-1]
    assert ("kl_nats" in figures) == (arch != "gru_decoder_lm")


def test_checkpoints_load_without_allow_listing(runs: dict[str, Path]):
    for path in runs.values():
        torch.serialization.clear_safe_globals()
        try:
            assert torch.load(path, weights_only=True)["model"]
        finally:
            plugin.install()


def test_a_stopped_run_with_word_dropout_goes_on_exactly(data_dir: Path, tmp_path: Path):
    flags = ["--arch", "vae_gru", *TINY, "--dropout", "0.2", "--word-dropout", "0.3"]
    flags += ["--kl-annealing", "cyclic", "--kl-annealing-updates", "20"]
    flags += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10"]
    for updates in (9, 20):  # an epoch has 18
        commands.train(data_dir, tmp_path / "stopped", *flags, "--max-update", updates)
    commands.train(data_dir, tmp_path / "unstopped", *flags, "--max-update", 20)
    assert_same_end(tmp_path / "stopped", tmp_path / "unstopped")


@pytest.mark.parametrize(
    "arch", ["vae_gru", "gru_decoder_lm", "vae_transformer", "vat_transformer"]
)
def test_a_run_does_not_go_on_from_another_architecture(
    runs: dict[str, Path], data_dir: Path, arch: str
):
    before = runs["vae_lstm"].read_bytes()
    line = refused(
        commands.train, data_dir, runs["vae_lstm"].parent, "--arch", arch, *TINY, "--max-update", 9
    )
    assert line.startswith("the checkpoint holds another architecture than the one asked for")
    assert "\n" not in line
    assert runs["vae_lstm"].read_bytes() == before


def test_generation_with_another_architecture_is_refused(runs: dict[str, Path], data_dir: Path):
    overrides = ("--model-overrides", "{'decoder_type': 'gru'}")
    line = refused(commands.generate, data_dir, runs["vae_lstm"], *overrides)
    assert line.startswith("the checkpoint holds another architecture than the one asked for")


def test_a_language_model_has_no_latents_to_draw(runs: dict[str, Path], data_dir: Path):
    line = refused(commands.generate, data_dir, runs["gru_decoder_lm"], "--latent-sampling")
    assert line.startswith("--latent-sampling needs models with latents")


def test_an_ensemble_has_latents_in_all_its_models_or_in_none(
    runs: dict[str, Path], data_dir: Path, checkpoint: Path
):
    paths = [str(runs[arch]) for arch in ("vae_lstm", "vae_transformer", "gru_decoder_lm")]
    assert len(commands.hypotheses(commands.generate(data_dir, ":".join(paths[:2])))) == 20
    for mixed in (paths[1:], paths[:0:-1]):
        line = refused(commands.generate, data_dir, ":".join(mixed))
        assert line == "--path: an ensemble can't mix language models and models with latents"
    line = refused(commands.generate, data_dir, f"{paths[1]}:{checkpoint}")
    assert line == "--path: an ensemble can't mix latents of sentences and of tokens"


@pytest.mark.parametrize("arch", ["vae_transformer", "vae_lstm", "gru_decoder_lm"])
def test_what_attends_to_no_tokens_prints_no_alignment(runs, data_dir: Path, arch: str):
    line = refused(commands.generate, data_dir, runs[arch], "--print-alignment")
    assert line.startswith("--print-alignment needs a Transformer decoder and a latent for every")
