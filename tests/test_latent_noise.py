"""--latent-noise: what z is drawn from, what equation (6) then is, and that the model keeps it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from helpers import commands
from helpers.models import batch, build
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from fairseq_vat.errors import VATError
from fairseq_vat.hub.loading import load_model
from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models.vat_transformer import VATModel

S = 0.4
STDS = [0.1, 0.4, 0.9, 1.0]


def outputs(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """mu and sigma of a network."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 3)), np.exp(rng.normal(size=(count, 3)))


def gaussian(mu: np.ndarray, std: np.ndarray) -> DiagonalGaussian:
    return DiagonalGaussian(torch.from_numpy(mu), 2 * torch.from_numpy(std).log())


def normal_kl(mean, std, prior_std):
    """KL(N(mean, std^2) || N(0, prior_std^2)), by torch."""
    mean, std = torch.as_tensor(mean), torch.as_tensor(std)
    prior = Normal(torch.zeros_like(mean), torch.full_like(mean, prior_std))
    return kl_divergence(Normal(mean, std), prior).numpy()


@pytest.mark.parametrize("s", STDS)
def test_penalty_is_equation_6_of_the_network_s_outputs(s):
    mu, sigma = outputs()
    z = gaussian(mu, s * sigma)
    found = Prior(s).penalty(z, noise=Prior(s)).numpy()
    by_hand = -(np.log(sigma**2) / 2 - (sigma**2 + mu**2) / (2 * s**2) - np.log(s) + 0.5)
    np.testing.assert_allclose(found, by_hand, rtol=1e-9, atol=1e-9)
    # as docs/measures.md writes it, in z / s^2 = m + t e, e ~ N(0, 1)
    m, t = mu / s**2, sigma / s
    np.testing.assert_allclose(
        found, (s**2 * m**2 + t**2 - 1 - np.log(t**2)) / 2, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(gaussian(m, t).mean, z.mean / s**2)
    np.testing.assert_allclose(gaussian(m, t).std, z.std / s**2)
    unit = Prior(0.7).penalty(z, noise=None)
    np.testing.assert_allclose(unit, normal_kl(mu, s * sigma, 0.7), rtol=1e-9)


@pytest.mark.parametrize("s", STDS)
def test_kl_is_between_the_penalty_and_its_multiple(s):
    mu, sigma = outputs()
    z = gaussian(mu, s * sigma)
    prior = Prior(s)
    kl = prior.of_latents(noise=prior).kl(z).numpy()
    np.testing.assert_allclose(kl, normal_kl(mu, s * sigma, s**2), rtol=1e-9)
    penalty = prior.penalty(z, prior).numpy()
    np.testing.assert_allclose(kl - penalty, mu**2 / 2 * (s**-4 - s**-2), rtol=1e-7, atol=1e-9)
    assert (penalty <= kl * (1 + 1e-12)).all()
    assert (kl <= penalty / s**2 * (1 + 1e-12)).all()
    unused = gaussian(np.zeros(3), np.full(3, s**2))
    assert prior.penalty(unused, prior).abs().max() < 1e-12
    assert Prior(s**2).kl(unused).abs().max() < 1e-12
    assert prior.of_latents(noise=None) == prior


def test_s_can_be_scaled_away_with_unit_noise_only():
    mu, sigma = outputs()
    priors = Prior(S), Prior(1.0)
    unit = [p.penalty(gaussian(p.std * mu, p.std * sigma), None).numpy() for p in priors]
    np.testing.assert_allclose(*unit, rtol=1e-9)
    # z / s^2 being the same, and so all that a linear layer can make of it
    small, one = (p.penalty(gaussian(p.std**2 * mu, p.std**2 * sigma), p).numpy() for p in priors)
    np.testing.assert_allclose(one - small, (1 - S**2) * mu**2 / 2, rtol=1e-7, atol=1e-9)


def test_nll_and_penalty_are_no_bound_where_nll_and_kl_are():
    """x = z + e with z of its prior: the exact posterior makes the ELBO log p(x)."""
    s, noise, x = Prior(S), 0.05, 0.3
    prior = s.of_latents(s)
    variance = 1 / (1 / prior.std**2 + 1 / noise**2)
    mean, std = variance * x / noise**2, math.sqrt(variance)
    nll = 0.5 * (math.log(2 * math.pi * noise**2) + ((x - mean) ** 2 + variance) / noise**2)
    exact = -norm.logpdf(x, 0, math.hypot(prior.std, noise))
    posterior = gaussian(np.array([mean]), np.array([std]))
    assert nll + float(prior.kl(posterior)) == pytest.approx(exact)
    assert nll + float(s.penalty(posterior, s)) < exact - 0.5


@pytest.fixture(scope="module")
def pair(data_dir):
    """Models of either noise with the same weights, and the prior's criterion."""
    task, unit, _ = build(data_dir, "--dropout", "0")
    _, prior, criterion = build(data_dir, "--dropout", "0", "--latent-noise", "prior")
    prior.load_state_dict(unit.state_dict())
    return task, unit.eval(), prior.eval(), criterion


def test_draws_have_s_times_the_deviation(pair):
    task, unit, prior, _ = pair
    tokens = batch(task, [0, 1, 2])["net_input"]["src_tokens"]
    outs = [model.encoder(tokens) for model in (unit, prior)]
    mean = outs[0]["latent_mean"][0]
    assert torch.equal(mean, outs[1]["latent_mean"][0])
    for temperature in (1.0, 0.5):
        plain, narrow = (
            model.encoder.draw(out, seed=1, temperature=temperature)["encoder_out"][0] - mean
            for model, out in zip((unit, prior), outs, strict=True)
        )
        torch.testing.assert_close(narrow, S * plain, rtol=1e-4, atol=1e-6)
    stds = [
        model.encoder.posterior(out).std for model, out in zip((unit, prior), outs, strict=True)
    ]
    torch.testing.assert_close(stds[1], S * stds[0])
    torch.testing.assert_close(prior.encoder.layers_and_posterior(tokens)[1].std, stds[1])


@pytest.mark.parametrize(
    ("flags", "term"),
    [
        ((), lambda penalty: penalty.sum()),
        (("--kl-reduction", "mean"), lambda penalty: penalty.mean(axis=-1).sum()),
        (("--free-bits", "9"), lambda penalty: penalty.sum(axis=-1).clip(min=9).sum()),
    ],
)
def test_loss_has_the_penalty_and_the_log_both(pair, data_dir, flags, term):
    task, unit, prior, _ = pair
    criterion = build(data_dir, "--latent-noise", "prior", *flags)[2]
    sample = batch(task, [0, 1, 2, 3])
    loss, _, logged = criterion(prior, sample)
    out = unit.encoder(sample["net_input"]["src_tokens"])  # its sigma has no s in it
    keep = sample["net_input"]["src_tokens"].t().ne(1).numpy()
    mu, sigma = (x[0].detach().double().numpy() for x in (out["latent_mean"], out["latent_logvar"]))
    mu, sigma = mu[keep], np.exp(sigma[keep] / 2)
    penalty = normal_kl(mu, sigma, S)
    assert float(loss) == pytest.approx(float(logged["nll_loss"]) + term(penalty), rel=1e-5)
    assert float(logged["penalty"]) == pytest.approx(penalty.sum(), rel=1e-5)
    assert float(logged["kl"]) == pytest.approx(normal_kl(mu, S * sigma, S**2).sum(), rel=1e-5)
    assert logged["prior_std"] / logged["ntokens"] == pytest.approx(S**2)


def test_a_model_s_noise_is_the_criterion_s_prior(pair, data_dir):
    task, _, prior, _ = pair
    other = build(data_dir, "--prior-std", "0.5")[2]
    with pytest.raises(VATError, match=r"the model's prior_std 0.4 isn't the criterion's 0.5"):
        other(prior, batch(task, [0]))


def test_other_criteria(data_dir):
    cross_entropy = ("--criterion", "cross_entropy")
    assert build(data_dir, *cross_entropy)[1].encoder.noise_std == 1.0
    with pytest.raises(VATError, match="--latent-noise prior needs --prior-std"):
        build(data_dir, *cross_entropy, "--latent-noise", "prior")


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    flags = ("--latent-noise", "prior", "--max-update", "60", "--kl-weight", "0.01")
    log = commands.train(data_dir, folder, *flags, "--prior-std", "0.5")
    return folder / "checkpoint_last.pt", commands.stats(log)[-1]


def test_the_model_keeps_its_noise(trained, data_dir):
    path, valid = trained
    cfg = checkpoint_utils.load_checkpoint_to_cpu(str(path))["cfg"]
    assert (str(cfg.model.latent_noise), cfg.model.prior_std) == ("prior", 0.5)
    assert load_model(path, data_dir, "cpu").model.encoder.noise_std == 0.5
    vat = VATModel.from_pretrained(path.parent, data_name_or_path=str(data_dir), device="cpu")
    line = "w1 w2 w3"
    z = vat.encode([line])
    tokens = torch.tensor([[0, *vat.binarize(line).tolist()]])
    head, x = vat.model.encoder.head, vat.model.encoder.body(tokens)["encoder_out"][0][:, 0]
    torch.testing.assert_close(z.logvar[0], head.logvar(x) + 2 * math.log(0.5))
    logged = commands.stats(commands.validate(data_dir, path), "valid")[-1]
    for name in ("nll_loss", "kl_nats", "penalty_nats", "latent_gain"):
        assert logged[name] == valid[name]
    assert float(logged["penalty_nats"]) < float(logged["kl_nats"])


def test_generation_draws_with_it(trained, data_dir, monkeypatch):
    from fairseq_vat.models.latent_encoder import LatentEncoder

    drawn, draw = [], LatentEncoder.draw

    def watch(self, out, *args, **kwargs):
        drawn.append(self.noise_std)
        return draw(self, out, *args, **kwargs)

    monkeypatch.setattr(LatentEncoder, "draw", watch)
    flags = ("--latent-sampling", "--max-len-b", "4")
    commands.generate(data_dir, trained[0], *flags)
    commands.interactive(data_dir, trained[0], b"w1 w2\n", *flags)
    assert len(drawn) > 1 and set(drawn) == {0.5}


def test_prior_std_of_a_tool_moves_the_prior_alone(trained, data_dir, subcommand):
    evaluate = subcommand("evaluate", "--json", "--no-bleu", "--cpu")
    same, wider = (evaluate(*flags, path=trained[0]) for flags in ((), ("--prior-std", "0.9")))
    assert (same["prior_std"], wider["prior_std"]) == (0.25, 0.9)
    assert same["latent_noise"] == "prior" and same["noise_std"] == wider["noise_std"] == 0.5
    for name in ("nll_samples", "penalty_nats", "mi", "least_kl_prior_std"):
        assert same[name] == wider[name]
    for name in ("kl_nats", "iw_nll", "nll_prior"):
        assert same[name] != wider[name]
    table = subcommand("evaluate", "--no-bleu", "--cpu")(path=trained[0])
    assert "prior std 0.25, noise std 0.5" in table and "penalty in training (no KL)" in table


def test_the_prior_that_sentences_are_written_from(trained, data_dir, monkeypatch):
    vat = VATModel.from_pretrained(trained[0].parent, data_name_or_path=str(data_dir), device="cpu")
    seen = []
    monkeypatch.setattr(vat, "decode", lambda points, *args, **kwargs: seen.extend(points) or [])
    vat.sample_prior(300, length=6)
    assert float(torch.cat(seen).std()) == pytest.approx(0.25, rel=0.02)
