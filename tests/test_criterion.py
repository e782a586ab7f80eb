"""The loss and what is logged, against sums written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fairseq.logging import metrics
from helpers import commands
from helpers.models import batch, build
from torch.distributions import Normal, kl_divergence

from fairseq_vat.errors import VATError
from fairseq_vat.latent import noise

BITS = math.log(2)


def by_hand(model, sample, seed, prior_std=0.4):
    """nll, and the KL of every latent dimension with padding left out, of a batch."""
    logits, extra = model(**sample["net_input"], latent_seed=seed)
    nll = F.cross_entropy(
        logits.flatten(0, 1), sample["target"].flatten(), ignore_index=1, reduction="sum"
    )
    posterior = extra["posterior"]
    prior = Normal(torch.zeros_like(posterior.mean), torch.full_like(posterior.mean, prior_std))
    kl = kl_divergence(Normal(posterior.mean, posterior.std), prior)
    return nll, kl[sample["net_input"]["src_tokens"].t().ne(1)]


@pytest.mark.parametrize(
    ("flags", "kl_term"),
    [
        ("--kl-weight 1", lambda kl: kl.sum()),
        ("--kl-weight 0.3", lambda kl: 0.3 * kl.sum()),
        ("--kl-weight 0", lambda kl: 0 * kl.sum()),
        ("--kl-reduction mean", lambda kl: kl.mean(dim=-1).sum()),
        ("--prior-std 1.5", lambda kl: kl.sum()),
        ("--free-bits 9", lambda kl: kl.sum(dim=-1).clamp(min=9).sum()),
        ("--free-bits 0.7 --free-bits-per dimension", lambda kl: kl.clamp(min=0.7).sum()),
        (
            "--free-bits 9 --kl-reduction mean --kl-weight 2",
            lambda kl: 2 * kl.sum(dim=-1).clamp(min=9).sum() / kl.size(-1),
        ),
        (
            "--kl-annealing linear --kl-annealing-updates 10",
            lambda kl: 0.4 * kl.sum(),
        ),
    ],
)
def test_loss_is_reconstruction_plus_weighted_kl(data_dir, flags, kl_term):
    _, model, criterion = build(data_dir, "--dropout", "0", *flags.split())
    task = criterion.task
    model.set_num_updates(4)
    sample = batch(task, [0, 1, 2, 3])
    loss, sample_size, logged = criterion(model.train(), sample)
    seed = (3 << 40) + 4 + 1
    nll, kl = by_hand(model, sample, seed, criterion.cfg.prior_std)
    torch.testing.assert_close(loss, nll + kl_term(kl), rtol=1e-5, atol=1e-3)
    # whatever bounds or averages the loss, what is reported is the plain sum
    torch.testing.assert_close(logged["kl"], kl.sum().detach(), rtol=1e-5, atol=1e-3)
    assert sample_size == sample["ntokens"]


def test_label_smoothing_is_fairseq_s_and_never_in_nll(data_dir):
    task, model, criterion = build(data_dir, "--dropout", "0", "--label-smoothing", "0.2")
    sample = batch(task, [0, 1, 2, 3])
    loss, _, logged = criterion(model.eval(), sample)
    nll, kl = by_hand(model, sample, 0)
    torch.testing.assert_close(logged["nll_loss"], nll.detach(), rtol=1e-5, atol=1e-3)
    logits, _ = model(**sample["net_input"], latent_seed=0)
    log_probs = F.log_softmax(logits, dim=-1)[sample["target"].ne(1)]
    share = 0.2 / (log_probs.size(-1) - 1)
    expected = (1 - 0.2 - share) * nll - share * log_probs.sum() + kl.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)


def test_sentence_avg_divides_by_sentences(data_dir):
    task, model, criterion = build(data_dir, "--sentence-avg")
    assert criterion(model, batch(task, [0, 1, 2]))[1] == 3


def test_training_noise_is_new_at_every_update_and_validation_s_never(data_dir):
    task, model, criterion = build(data_dir, "--dropout", "0")
    sample = batch(task, [0, 1, 2])

    def loss(update, training):
        model.set_num_updates(update)
        model.train(training)
        with torch.no_grad():
            return criterion(model, sample)[0].item()

    assert loss(1, True) != loss(2, True)
    assert loss(1, True) == loss(1, True)
    assert loss(1, False) == loss(2, False)


def test_logged_numbers_are_those_of_the_definitions(data_dir):
    task, model, criterion = build(data_dir, "--dropout", "0", "--kl-weight", "0.25")
    model.eval()
    samples = [batch(task, [0, 1, 2]), batch(task, [3, 4, 5, 6])]
    with torch.no_grad(), metrics.aggregate() as log:
        for sample in samples:
            task.reduce_metrics([criterion(model, sample)[2]], criterion)
        values = log.get_smoothed_values()
        parts = [by_hand(model, sample, seed=0) for sample in samples]
        means = [
            model(**s["net_input"])[1]["posterior"].mean[s["net_input"]["src_tokens"].t().ne(1)]
            for s in samples
        ]
    tokens = sum(s["ntokens"] for s in samples)
    nll = sum(nll for nll, _ in parts).item() / tokens / BITS
    kl = torch.cat([kl for _, kl in parts])
    assert values["nll_loss"] == pytest.approx(nll, abs=1e-3)
    assert values["ppl"] == pytest.approx(2**nll, rel=1e-2)
    assert values["kl_loss"] == pytest.approx(kl.sum().item() / tokens / BITS, abs=1e-3)
    assert values["kl_nats"] == pytest.approx(kl.sum().item() / len(kl), abs=1e-3)
    assert values["loss"] == pytest.approx(nll + 0.25 * values["kl_loss"], abs=2e-3)
    assert values["kl_weight"] == 0.25
    assert values["active_units"] == (torch.cat(means).var(dim=0) >= 0.01).sum()
    # the sum of two rounded logs decides the exponent, so compare in logs
    assert math.log2(values["elbo_ppl"]) == pytest.approx(nll + values["kl_loss"], abs=2e-2)
    assert "from_mean" not in values and not any(k.startswith("_") for k in values)


def test_the_gain_of_own_latents_is_logged_in_validation_only(data_dir):
    task, model, criterion = build(data_dir, "--dropout", "0")
    sample = batch(task, [0, 1, 2])
    assert "nll_prior" not in criterion(model.train(), sample)[2]
    model.eval()
    with torch.no_grad(), metrics.aggregate() as log:
        logged = criterion(model, sample)[2]
        task.reduce_metrics([logged], criterion)
    net_input = sample["net_input"]
    keys = noise.sentence_keys(net_input["src_tokens"], 1)
    out = model.encoder(net_input["src_tokens"])
    memory = 0.4 * noise.normal(keys, *out["encoder_out"][0].shape[::2], seed=0)
    logits = model.decoder(
        net_input["prev_output_tokens"], encoder_out={**out, "encoder_out": [memory]}
    )[0]
    target = sample["target"].flatten()
    prior = F.cross_entropy(logits.flatten(0, 1), target, ignore_index=1, reduction="sum")
    torch.testing.assert_close(logged["nll_prior"].float(), prior, rtol=1e-5, atol=1e-3)
    gain = (prior - logged["nll_loss"]) / sample["ntokens"] / BITS
    assert log.get_smoothed_values()["latent_gain"] == pytest.approx(float(gain), abs=1e-4)


def test_decoding_from_the_mean_is_labelled_and_gives_no_bound(data_dir):
    task, model, criterion = build(data_dir, "--valid-latents", "mean", "--report-accuracy")
    sample = batch(task, [0, 1, 2])
    model.eval()
    with torch.no_grad(), metrics.aggregate() as log:
        logged = criterion(model, sample)[2]
        task.reduce_metrics([logged], criterion)
        nll, _ = by_hand(model, sample, seed=None)
        best = model(**sample["net_input"])[0].argmax(dim=-1)
    values = log.get_smoothed_values()
    torch.testing.assert_close(logged["nll_loss"], nll, rtol=1e-5, atol=1e-3)
    assert values["from_mean"] == 1 and "elbo_ppl" not in values
    right = (best.eq(sample["target"]) & sample["target"].ne(1)).sum().item()
    assert values["accuracy"] == pytest.approx(100 * right / sample["ntokens"], abs=1e-2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prior-std 0", "--prior-std must be a standard deviation above 0, not 0"),
        ("--prior-std -0.4", "--prior-std must be a standard deviation above 0, not -0.4"),
        ("--kl-weight -1", "--kl-weight must be 0 or above, not -1"),
        ("--free-bits -1", "--free-bits must be 0 or above"),
        ("--kl-annealing cyclic", "--kl-annealing cyclic needs the number of updates"),
        (
            "--kl-annealing cyclic --kl-annealing-updates 9 --kl-annealing-cycles 0",
            "--kl-annealing-cycles must be at least 1",
        ),
        ("--label-smoothing 1", "--label-smoothing must be from 0"),
    ],
)
def test_values_out_of_range_name_their_flag_and_leave_nothing(data_dir, tmp_path, flags, message):
    with pytest.raises(VATError, match=message):
        commands.train(data_dir, tmp_path / "run", *flags.split())
    assert not list(tmp_path.glob("run/*.pt"))


def test_an_unknown_schedule_is_refused(data_dir, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.train(data_dir, tmp_path, "--kl-annealing", "exponential")
    assert stop.value.code == 2
    assert "argument --kl-annealing: invalid choice: 'exponential'" in capsys.readouterr().err
