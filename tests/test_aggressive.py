"""Aggressive training: whose turn it is, what an update leaves alone, stopping and resuming."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import commands
from helpers.distributed import train_with_two
from helpers.models import batch, build
from helpers.runs import assert_equal, assert_same_end, state
from torch import nn

from fairseq_vat.errors import VATError
from fairseq_vat.measures.mutual_information import mutual_information
from fairseq_vat.tasks import validation
from fairseq_vat.tasks.aggressive import WINDOW, AggressiveTraining, Phase, Step, keep_gradients


def steps(rule: AggressiveTraining, losses: list[float]) -> str:
    """The turns of updates with these losses per token, by their first letters."""
    turns = ""
    for loss in losses:
        step = rule.next_step()
        rule.made(step, loss * 7.0, 7.0)
        turns += step.value[0]
    return turns


def test_up_to_ten_encoder_updates_are_the_exact_number():
    assert steps(AggressiveTraining(3), [1.0, 9.0, 1.0] * 4) == "eeedeeedeeed"
    assert steps(AggressiveTraining(WINDOW), [1.0] * 33) == ("e" * WINDOW + "d") * 3


def test_a_run_ends_when_the_loss_no_longer_falls():
    falling, rising = [5.0] * WINDOW + [4.0] * WINDOW, [4.1] * WINDOW
    turns = steps(AggressiveTraining(100), [*falling, *rising, 0.0, *falling, *rising, 0.0])
    assert turns == ("e" * 3 * WINDOW + "d") * 2
    # the first window of a run is compared with none, the decoder's own loss with nothing
    turns = steps(AggressiveTraining(100), [*falling, *rising, 0.0, *[9.0] * WINDOW, *falling])
    assert turns == "e" * 3 * WINDOW + "d" + "e" * 3 * WINDOW


def test_the_mean_of_a_window_is_per_token():
    rule = AggressiveTraining(100)
    for tokens in [10.0] * WINDOW + [1.0] * WINDOW:  # a lower sum, a higher mean
        rule.made(rule.next_step(), 0.5 * tokens if tokens > 1 else 0.6, tokens)
    assert rule.next_step() is Step.decoder


def test_a_run_is_no_longer_than_asked_for():
    losses = [1000.0 - update for update in range(52)]
    assert steps(AggressiveTraining(25), losses) == ("e" * 25 + "d") * 2


def test_the_phase_ends_with_its_last_update():
    rule = AggressiveTraining(2, max_updates=4)
    assert steps(rule, [1.0] * 3) == "eed"
    assert "--aggressive-max-updates 4" in rule.made(rule.next_step(), 1.0, 1.0)
    assert steps(rule, [1.0] * 3) == "bbb"
    assert (rule.phase.updates, rule.phase.decoder_updates) == (4, 1)


def test_the_phase_ends_when_mutual_information_falls():
    rule = AggressiveTraining(2)
    assert [rule.look(mi) for mi in (-0.1, 0.5, 0.5, 1.2)] == [None] * 4
    assert rule.next_step() is Step.encoder
    assert rule.look(1.1) == ("mutual information on validation data fell from 1.200 to 1.100 nats")
    assert steps(rule, [1.0] * 2) == "bb"


def test_a_phase_goes_on_from_its_numbers():
    losses = [3.0 + (update * 7 % 11) / 10 for update in range(90)]
    whole = steps(AggressiveTraining(100), losses)
    assert "d" in whole
    for stop in (5, 10, 31, 60):
        first = AggressiveTraining(100)
        turns = steps(first, losses[:stop])
        second = AggressiveTraining(100)
        second.phase = Phase(**asdict(first.phase))
        assert turns + steps(second, losses[stop:]) == whole


# --- what the updates of a training move -----------------------------------------------------

# weight decay and moments would move a parameter whose gradient is merely zero
FLAGS = ["--weight-decay", "0.1", "--clip-norm", "1.0", "--log-interval", "1"]
TRACE = ["--save-interval-updates", "1", "--no-last-checkpoints", "--disable-validation"]
PLAN = "eedeebb"  # at most two encoder updates in a row, five aggressive ones


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--no-share-all-embeddings", "--update-freq", "2"],
        ["--arch", "vae_lstm", "--encoder-hidden-size", "16", "--decoder-hidden-size", "16"],
        # scaled up, the first losses would overflow, which fairseq mends on a GPU only
        ["--fp16", "--fp16-no-flatten-grads", "--fp16-init-scale", "1"],
        ["--fp16", "--memory-efficient-fp16", "--fp16-init-scale", "1"],
        ["--amp"],
    ],
    ids=["plain", "own tables", "lstm", "fp16", "memory-efficient fp16", "amp"],
)
def test_an_update_moves_whose_turn_it_is(flags: list[str], data_dir: Path, tmp_path: Path):
    log = commands.train(
        *(data_dir, tmp_path, *FLAGS, *TRACE, *flags, "--max-update", str(len(PLAN))),
        *("--aggressive-encoder-updates", "2", "--aggressive-max-updates", "5"),
    )
    assert log.count("aggressive training ended after 5 updates, 1 of them the decoder's") == 1
    shares = [figures["encoder_only"] for figures in commands.updates(log).values()]
    assert shares == ["100" if turn == "e" else "0" for turn in PLAN]

    before: dict[str, torch.Tensor] = {}
    for update, turn in enumerate(PLAN, 1):
        saved = state(tmp_path / f"checkpoint_1_{update}.pt")
        now = saved["model"]
        if before:
            moved = {name for name in now if not torch.equal(now[name], before[name])}
            of_encoder = {name for name in now if name.startswith("encoder.")}
            # the shared embeddings are the decoder's; to the encoder they are on loan
            shared = {name for name in of_encoder if _is_shared(name, flags)}
            assert of_encoder and shared != of_encoder
            if turn == "e":
                assert moved and moved <= of_encoder - shared
                assert "encoder.head.mean.weight" in moved
            elif turn == "d":
                assert moved and not moved & (of_encoder - shared)
                assert "decoder.embed_tokens.weight" in moved
                assert shared <= moved
            else:
                assert moved & (of_encoder - shared) and moved - of_encoder
        before = now


def _is_shared(name: str, flags: list[str]) -> bool:
    return name == "encoder.body.embed_tokens.weight" and not (
        "--no-share-all-embeddings" in flags or "vae_lstm" in flags
    )


def test_moments_stand_still_too(data_dir: Path, tmp_path: Path):
    commands.train(
        *(data_dir, tmp_path, *FLAGS, *TRACE, "--max-update", "5"),
        *("--aggressive-encoder-updates", "2", "--aggressive-max-updates", "5"),
    )
    moments = [
        state(tmp_path / f"checkpoint_1_{update}.pt")["last_optimizer_state"]["state"]
        for update in range(1, 6)
    ]
    # turns: e e d e e
    counts = [[value["step"] for value in saved.values()] for saved in moments]
    assert set(counts[1]) == {2}  # the decoder's have none yet
    assert sorted(set(counts[2])) == [1, 2] and sorted(set(counts[4])) == [1, 4]
    of_decoder = [key for key, value in moments[4].items() if value["step"] == 1]
    for key in of_decoder:
        assert_equal(moments[4][key], moments[2][key], f"moments {key}")


def test_ordinary_training_is_as_it_was(data_dir: Path, tmp_path: Path):
    log = commands.train(data_dir, tmp_path, *FLAGS, "--max-update", "2")
    assert "encoder_only" not in log
    assert "VariationalLMTask" not in state(tmp_path / "checkpoint_last.pt")["extra_state"]


# --- the end by mutual information, and resuming ---------------------------------------------


def test_validation_ends_the_phase(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Looks are those of --validate-interval-updates; the one where a run stops is none."""
    values = iter([1.0, 2.0, 1.5])  # after 4, 8 and 12 updates

    def information(encoder: nn.Module, net_input: dict[str, torch.Tensor]) -> dict[str, float]:
        assert not encoder.training
        return {"mi": next(values) * 3, "mi_latents": 3}

    monkeypatch.setattr(validation, "batch_information", information)
    flags = ["--validate-interval-updates", "4", "--aggressive-encoder-updates", "2"]
    flags += ["--max-tokens-valid", "2000", "--log-interval", "1"]
    log = commands.train(data_dir, tmp_path, *flags, "--max-update", "6")
    valid = commands.stats(log)
    assert [line.get("mi") for line in valid] == ["1", None]
    log = commands.train(data_dir, tmp_path, *flags, "--max-update", "20")
    shown = {line["num_updates"]: line.get("mi") for line in commands.stats(log)}
    assert (shown["8"], shown["12"], shown["16"]) == ("2", "1.5", None)
    assert "fell from 2.000 to 1.500 nats" in log
    turns = {update: line["encoder_only"] for update, line in commands.updates(log).items()}
    assert turns[12] == "0" and turns[11] == turns[10] == "100"
    assert {turns[update] for update in range(13, 21)} == {"0"}


@pytest.mark.parametrize("level", ["token", "sentence"])
def test_the_information_is_that_of_the_batch_s_latents(level: str, data_dir: Path):
    task, model, _ = build(data_dir, "--latent-level", level)
    model.eval()
    encoder = model.encoder
    net_input = batch(task, [0, 1, 2, 3], pad_to=20)["net_input"]
    found = validation.batch_information(encoder, net_input)
    latents = []
    for row in range(4):  # one by one, so without padding
        tokens = batch(task, [row])["net_input"]["src_tokens"]
        out = encoder(tokens)
        draw = encoder.draw(out, validation.MI_SEED)["encoder_out"][0]
        latents.append(torch.stack([out["latent_mean"][0], out["latent_logvar"][0], draw])[:, :, 0])
    expected = mutual_information(*torch.cat(latents, dim=1).detach())
    assert found["mi_latents"] == expected.latents
    assert expected.latents == (4 if level == "sentence" else sum(x.size(1) for x in latents))
    assert found["mi"] / found["mi_latents"] == pytest.approx(expected.paired, abs=1e-3)
    assert 0.1 < expected.paired <= expected.ceiling


def test_stopped_and_resumed(data_dir: Path, tmp_path: Path):
    flags = [*FLAGS, "--dropout", "0.2", "--aggressive-encoder-updates", "12"]
    flags += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10"]
    flags += ["--validate-interval-updates", "10", "--kl-weight", "0.01"]
    reference, stopped = tmp_path / "reference", tmp_path / "stopped"
    whole = commands.train(data_dir, reference, *flags, "--max-update", "29")
    first = commands.train(data_dir, stopped, *flags, "--max-update", "17")
    second = commands.train(data_dir, stopped, *flags, "--max-update", "29")
    turns = [
        {update: line["encoder_only"] for update, line in commands.updates(log).items()}
        for log in (whole, first, second)
    ]
    assert {**turns[1], **turns[2]} == turns[0]
    assert {"0", "100"} == set(turns[2].values())
    assert_same_end(stopped, reference)
    phases = [
        state(folder / "checkpoint_last.pt")["extra_state"]["VariationalLMTask"]["aggressive"]
        for folder in (stopped, reference)
    ]
    assert phases[0] == phases[1]
    assert phases[0]["last_mi"] is not None


def test_the_loss_watched_is_that_of_all_batches(data_dir: Path, tmp_path: Path):
    flags = ["--update-freq", "3", "--aggressive-encoder-updates", "9", "--log-interval", "1"]
    log = commands.train(
        *(data_dir, tmp_path, *flags, "--aggressive-max-updates", "99", "--max-update", "3")
    )
    phase = state(tmp_path / "checkpoint_last.pt")["extra_state"]["VariationalLMTask"]["aggressive"]
    updates = commands.updates(log).values()
    tokens = [float(figures["wpb"]) for figures in updates]
    bits = [float(figures["loss"]) for figures in updates]
    assert phase["run"] == 3 and phase["window_tokens"] == sum(tokens)
    loss = math.log(2) * sum(a * b for a, b in zip(tokens, bits, strict=True))
    assert phase["window_loss"] == pytest.approx(loss, rel=1e-3)


def test_two_processes_take_the_same_turns(data_dir: Path, tmp_path: Path):
    """As one process on the same global batches, the phase's end by its information included."""
    flags = ["--aggressive-encoder-updates", "2", "--validate-interval-updates", "3"]
    flags += ["--max-update", "10"]
    two, _ = train_with_two(data_dir, tmp_path / "two", *flags)
    alone = ["--dropout", "0", "--kl-weight", "0.1", "--clip-norm", "1.0", "--log-interval", "1"]
    alone += ["--kl-annealing", "logistic", "--kl-annealing-updates", "20"]
    alone += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10", "--update-freq", "2"]
    one = commands.train(data_dir, tmp_path / "one", *alone, *flags)
    turns, informed = [], []
    for log in (one, two):
        turns.append([figures["encoder_only"] for figures in commands.updates(log).values()])
        informed.append([float(line["mi"]) for line in commands.stats(log) if "mi" in line])
    assert turns[0] == turns[1] and "0" in turns[0] and "100" in turns[0]
    assert informed[1] == pytest.approx(informed[0], abs=2e-3) and informed[0]
    models = [
        commands.parameters(tmp_path / name / "checkpoint_last.pt") for name in ("one", "two")
    ]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


# --- refusals --------------------------------------------------------------------------------

ON = ["--aggressive-encoder-updates", "5"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (ON, "needs an end: --validate-interval-updates"),
        (
            [*ON, "--validate-interval-updates", "3", "--disable-validation"],
            "not with --disable-validation",
        ),
        (["--aggressive-encoder-updates", "-1"], "must be 0 (off) or above, not -1"),
        (["--aggressive-max-updates", "5"], "needs --aggressive-encoder-updates"),
        ([*ON, "--aggressive-max-updates", "0"], "must be at least 1, not 0"),
        (
            [*ON, "--aggressive-max-updates", "5", "--arch", "lstm_decoder_lm"],
            "a language model has no encoder",
        ),
        ([*ON, "--aggressive-max-updates", "5", "--use-bmuf"], "--use-bmuf"),
    ],
)
def test_refused(flags: list[str], says: str, data_dir: Path, tmp_path: Path):
    with pytest.raises(VATError) as error:
        commands.train(data_dir, tmp_path / "run", *flags)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("*.pt"))


def test_optimizers_that_join_parameters_are_refused():
    model = nn.Module()
    model.encoder, model.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    parameters = list(model.parameters())
    flat = SimpleNamespace(fp32_params={0: nn.Parameter(torch.zeros(12))}, has_flat_params=True)
    with pytest.raises(VATError, match="--fp16-no-flatten-grads"):
        keep_gradients(flat, model, Step.encoder)
    joined = SimpleNamespace(params=[nn.Parameter(torch.zeros(12))])
    with pytest.raises(VATError, match="fully_sharded"):
        keep_gradients(joined, model, Step.encoder)
    for optimizer in (flat, joined):
        keep_gradients(optimizer, model, Step.both)  # nothing to keep apart
    frozen = SimpleNamespace(params=parameters[1:])
    parameters[0].requires_grad = False
    keep_gradients(frozen, model, Step.encoder)


def test_slow_momentum_is_refused():
    with pytest.raises(VATError, match="slowmo"):
        keep_gradients(SimpleNamespace(), SimpleNamespace(perform_slowmo=None), Step.encoder)
