"""Every architecture: encoders, decoders and latent levels, alone and together."""

from __future__ import annotations

import functools
from argparse import Namespace
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.models import ARCH_MODEL_REGISTRY
from helpers.models import batch, build
from helpers.systems import EOS, LANGUAGE_MODELS, PAD, SYSTEMS, TINY, UNK, each
from torch.distributions import Normal, kl_divergence

from fairseq_vat.errors import VATError
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models.config import VATTransformerConfig
from fairseq_vat.models.presets import PRESETS
from fairseq_vat.models.vat_transformer import VATModel

SENTENCE_LEVEL = {name: flags for name, flags in SYSTEMS.items() if name.endswith("sentence")}


def joined(lines: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=PAD)


# What a system is


def test_presets_are_the_architectures():
    assert PRESETS.keys() <= ARCH_MODEL_REGISTRY.keys()
    for cell in ("transformer", "lstm", "gru"):
        for suffix in ("", "_1024"):
            assert {f"vae_{cell}{suffix}", f"{cell}_decoder_lm{suffix}"} <= PRESETS.keys()


# VAE-Transformer paper, table 8.  The paper's language models have a bias at each of the 30,522
# outputs; here there is none, so that the loss needs no logits.
OUTPUT_BIASES = 30_522
TABLE_8 = {
    "vae_transformer": 12_763_706,
    "vae_transformer_1024": 118_395_834,
    "vae_lstm": 12_756_922,
    "vae_lstm_1024": 87_515_578,
    "vae_gru": 12_526_010,
    "vae_gru_1024": 75_575_738,
    "transformer_decoder_lm": 8_272_186,
    "transformer_decoder_lm_1024": 71_461_690,
    "lstm_decoder_lm": 8_108_346,
    "lstm_decoder_lm_1024": 48_315_450,
    "gru_decoder_lm": 8_042_298,
    "gru_decoder_lm_1024": 45_034_554,
}


@pytest.mark.parametrize(("name", "paper"), TABLE_8.items())
def test_numbers_of_parameters_are_near_the_paper_s(name: str, paper: int):
    dictionary = Dictionary()
    for number in range(30_522 - len(dictionary)):
        dictionary.add_symbol(str(number))
    defaults = {field.name: field.default for field in fields(VATTransformerConfig)}
    positions = {"max_source_positions": 64, "max_target_positions": 64}
    cfg = Namespace(**{**defaults, **PRESETS[name], **positions, "start_token": True})
    with torch.device("meta"):  # shapes alone
        model = VATModel.build_model(cfg, SimpleNamespace(source_dictionary=dictionary))
    count = sum(parameter.numel() for parameter in model.parameters())
    if name.startswith(("lstm", "gru")):
        assert count == paper - OUTPUT_BIASES
    else:
        # the paper doesn't say what its Transformers are made of
        near = 0.022 if name == "transformer_decoder_lm_1024" else 0.011
        assert count == pytest.approx(paper, rel=near)


# Batches and padding


def results(model: Any, sample: dict[str, Any], seed: int | None) -> tuple[float, torch.Tensor]:
    """A batch's loss, nll and KL together, and its logits (B, S, V)."""
    logits, _ = model(**sample["net_input"], latent_seed=seed)
    _, extra = model(**sample["net_input"], latent_seed=seed, target=sample["target"])
    loss = extra["likelihood"].nll
    if extra["posterior"] is not None:
        keep = ~extra["latent_padding_mask"].t().unsqueeze(-1)
        loss = loss + (Prior(1.0).kl(extra["posterior"]) * keep).sum()
    return loss, logits


@each({**SYSTEMS, **LANGUAGE_MODELS})
@torch.no_grad()
def test_a_sentence_ignores_its_batch_and_padding(make_system, flags):
    task, model, _ = make_system(flags)
    rows = list(range(5))
    together = batch(task, rows, pad_to=25)
    loss, logits = results(model, together, seed=5)
    alone = [batch(task, [row]) for row in rows]
    losses, by_id = 0, {}
    for sample in alone:
        one, x = results(model, sample, seed=5)
        losses, by_id[sample["id"].item()] = losses + one, x[0]
    assert len({len(x) for x in by_id.values()}) > 2  # lengths differ
    torch.testing.assert_close(loss, losses, rtol=1e-5, atol=1e-3)
    for row, number in enumerate(together["id"].tolist()):
        expected = by_id[number]
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=1e-4, atol=1e-4)


@each(SYSTEMS)
@torch.no_grad()
def test_a_sentence_s_nll_is_its_own_and_the_batch_s_share(make_system, flags):
    task, model, _ = make_system(flags)
    sample = batch(task, list(range(5)), pad_to=25)
    net_input = sample["net_input"]
    out = model.encoder.draw(model.encoder(net_input["src_tokens"]), seed=5)
    nll = model.sentence_nll(out, net_input["prev_output_tokens"], sample["target"])
    assert nll.shape == (5,) and nll.dtype == torch.float64
    logits, _ = model(**net_input, latent_seed=5)
    loss = F.cross_entropy(
        logits.transpose(1, 2), sample["target"], ignore_index=PAD, reduction="none"
    )
    torch.testing.assert_close(nll, loss.double().sum(dim=1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@torch.no_grad()
def test_a_recurrent_encoder_s_states_are_those_after_the_last_token(make_system, cell):
    task, model, _ = make_system(SYSTEMS[f"{cell}-transformer-token"])
    body = model.encoder.body
    tokens = batch(task, list(range(5)), pad_to=25)["net_input"]["src_tokens"]
    out = body(tokens)
    for row, line in enumerate(tokens):
        length = int(line.ne(PAD).sum())
        alone, last = body.rnn(body.embed_tokens(line[:length]))
        last = last[0] if cell == "lstm" else last
        states = torch.cat((last[-2], last[-1]))
        torch.testing.assert_close(out["sentence_out"][0][row], states)
        # forwards after the last token, backwards after the first
        torch.testing.assert_close(states[:16], alone[-1, :16])
        torch.testing.assert_close(states[16:], alone[0, 16:])
        torch.testing.assert_close(out["encoder_out"][0][:length, row], alone)
        assert out["encoder_out"][0][length:, row].eq(0).all()
    assert torch.equal(out["encoder_padding_mask"][0], tokens.eq(PAD))


# Latent levels


@each(SENTENCE_LEVEL)
def test_a_sentence_s_latent_counts_once(make_system, flags):
    task, model, criterion = make_system(flags)
    for pad_to in (None, 25):
        sample = batch(task, list(range(5)), pad_to)
        out = model.encoder(sample["net_input"]["src_tokens"])
        assert out["encoder_out"][0].shape == out["latent_mean"][0].shape == (1, 5, 8)
        assert out["encoder_padding_mask"][0].tolist() == [[False]] * 5
        loss, _, logged = criterion(model, sample)
        posterior = model.encoder.posterior(out)
        prior = Normal(0, torch.full_like(posterior.mean, 0.4))
        kl = kl_divergence(Normal(posterior.mean, posterior.std), prior).sum()
        assert logged["latents"] == 5
        torch.testing.assert_close(logged["kl"], kl.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loss, logged["nll_loss"] + kl, rtol=1e-5, atol=1e-3)
        with metrics.aggregate() as log:
            task.reduce_metrics([logged], criterion)
        assert log.get_smoothed_value("kl_nats") == pytest.approx(kl.item() / 5, abs=1e-3)


def test_a_transformer_s_sentence_latent_is_of_the_start_token_s_output_alone(make_system):
    task, model, _ = make_system(SYSTEMS["transformer-transformer-sentence"])
    tokens = batch(task, [0, 1, 2])["net_input"]["src_tokens"]
    expected = model.encoder(tokens)["latent_mean"][0]

    def with_noise(first: int, last: int | None) -> torch.Tensor:
        def hook(module: Any, args: Any, out: Any) -> Any:
            x = out["encoder_out"][0].clone()
            x[first:last] = torch.randn_like(x[first:last])
            return {**out, "encoder_out": [x]}

        handle = model.encoder.body.register_forward_hook(hook)
        latents = model.encoder(tokens)["latent_mean"][0]
        handle.remove()
        return latents

    assert torch.equal(with_noise(1, None), expected)
    assert not torch.allclose(with_noise(0, 1), expected)
    # that output has seen the whole sentence
    other = tokens.clone()
    other[:, 2] = other[:, 2] % 20 + 10
    assert not torch.allclose(model.encoder(other)["latent_mean"][0], expected)


@each(SYSTEMS)
@torch.no_grad()
def test_the_decoder_sees_the_sentence_through_latents_alone(make_system, flags):
    task, model, _ = make_system(flags)
    net_input = batch(task, [0, 1])["net_input"]
    out, prev = model.encoder(net_input["src_tokens"]), net_input["prev_output_tokens"]
    logits = model.decoder(prev, encoder_out=out)[0]
    bare = {name: [x.clone() for x in out[name]] for name in ("encoder_out",)}
    bare["encoder_padding_mask"] = out["encoder_padding_mask"]
    rest = {"encoder_embedding": [], "encoder_states": [], "src_tokens": [], "src_lengths": []}
    assert torch.equal(model.decoder(prev, encoder_out={**bare, **rest})[0], logits)
    bare["encoder_out"][0][:, 0] += torch.randn(8)
    changed = model.decoder(prev, encoder_out={**bare, **rest})[0]
    assert (changed[0] - logits[0]).abs().amax(dim=-1).min() > 1e-5  # at every position
    torch.testing.assert_close(changed[1], logits[1])


@each({**SYSTEMS, **LANGUAGE_MODELS})
def test_every_parameter_learns(make_system, flags):
    task, model, criterion = make_system(flags, training=True)
    criterion(model, batch(task, list(range(6))))[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # a softmax is blind to a constant, and over one latent it is always 1
        blind = name.endswith("k_proj.bias")
        if flags[-1] == "sentence":
            blind |= ".encoder_attn.q_proj." in name or ".encoder_attn.k_proj." in name
        assert blind or parameter.grad.abs().max() > 0, name


# Attention to one latent


def test_attention_to_one_latent_is_a_vector_that_is_added(make_system):
    """A softmax over one key is 1: queries and keys count nothing and learn nothing."""
    task, model, criterion = make_system(SYSTEMS["transformer-transformer-sentence"], training=True)
    sample = batch(task, list(range(6)))
    criterion(model, sample)[0].backward()
    for layer in model.decoder.layers:
        for part in (layer.encoder_attn.q_proj, layer.encoder_attn.k_proj):
            for parameter in part.parameters():
                assert parameter.grad is None or not parameter.grad.any()
        assert layer.encoder_attn.v_proj.weight.grad.abs().max() > 0
    attention = layer.encoder_attn
    generator = torch.Generator().manual_seed(1)
    z_PBL = torch.randn(1, 4, 8, generator=generator)
    for _ in range(2):
        query_SBC = torch.randn(7, 4, 16, generator=generator)
        found_SBC, _ = attention(query_SBC, z_PBL, z_PBL)
        expected_PBC = attention.out_proj(attention.v_proj(z_PBL))
        torch.testing.assert_close(found_SBC, expected_PBC.expand(7, 4, 16))


def test_a_linear_map_is_what_attention_to_one_latent_computes(make_system):
    """Without attention, v and out as one matrix: the same model with fewer parameters."""
    task, attending, _ = make_system(SYSTEMS["transformer-transformer-sentence"])
    _, adding, _ = make_system(SYSTEMS["transformer-addition-sentence"])
    state = adding.state_dict()
    for name, value in attending.state_dict().items():
        if ".encoder_attn." not in name:
            state[name] = value
    for number, layer in enumerate(attending.decoder.layers):
        v, out = layer.encoder_attn.v_proj, layer.encoder_attn.out_proj
        place = f"decoder.layers.{number}.encoder_attn.linear"
        state[f"{place}.weight"] = out.weight @ v.weight
        state[f"{place}.bias"] = out.weight @ v.bias + out.bias
    adding.load_state_dict(state)
    sample = batch(task, list(range(6)))
    logits = [model(**sample["net_input"], latent_seed=3)[0] for model in (attending, adding)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)
    counts = [sum(p.numel() for p in model.parameters()) for model in (attending, adding)]
    # each of two layers has two C x C and two L x C less, with biases, and one L x C more
    assert counts[0] - counts[1] == 2 * (2 * (16 * 16 + 16) + 1 * (8 * 16 + 16))


@pytest.mark.parametrize(
    "flags",
    [
        ["--latent-level", "token"],
        ["--decoder-type", "gru"],
        ["--cross-self-attention", "--latent-dim", "16"],
    ],
)
def test_only_one_latent_is_added(make_system, flags):
    with pytest.raises(VATError, match="--no-latent-attention needs --latent-level sentence"):
        make_system(["--arch", "vae_transformer", "--no-latent-attention", *flags])


# Free bits, word dropout, language models


@pytest.mark.parametrize("per", ["latent", "dimension"])
def test_free_bits_bound_each_sentence_s_loss_and_nothing_else(make_system, per):
    flags = SYSTEMS["gru-gru-sentence"]
    task, model, _ = make_system(flags)
    sample = batch(task, list(range(6)), pad_to=25)
    _, extra = model(**sample["net_input"], latent_seed=0)
    kl_BL = Prior(0.4).kl(extra["posterior"])[0].detach()
    each_kl = kl_BL.sum(dim=-1) if per == "latent" else kl_BL
    for bound in (each_kl.min() / 2, each_kl.median(), each_kl.max() * 2):
        bits = ["--free-bits", str(bound.item()), "--free-bits-per", per]
        *_, bounded = build(task.cfg.data, *flags[:2], *TINY, *flags[2:], *bits)
        loss, _, logged = bounded(model, sample)
        term = loss.detach() - logged["nll_loss"]
        torch.testing.assert_close(term, each_kl.clamp(min=bound).sum(), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(logged["kl"], kl_BL.sum(), rtol=1e-5, atol=1e-4)


@each({name: {**SYSTEMS, **LANGUAGE_MODELS}[name] for name in ("gru-gru-sentence", "lstm-lm")})
def test_word_dropout_changes_the_decoder_s_input_in_training_alone(make_system, flags):
    _, model, _ = make_system([*flags, "--word-dropout", "0.4"])
    torch.manual_seed(1)
    tokens = torch.randint(UNK + 1, 40, (64, 30))
    tokens[:, 0] = EOS
    tokens[::2, 20:] = PAD
    seen: dict[str, torch.Tensor] = {}

    def run(training: bool) -> torch.Tensor:
        model.train(training)
        model(tokens, None, tokens)
        return seen["decoder"]

    for side in ("decoder", "encoder.body") if model.has_latents else ("decoder",):
        model.get_submodule(f"{side}.embed_tokens").register_forward_pre_hook(
            functools.partial(lambda side, _, args: seen.update({side: args[0]}), side)
        )
    assert torch.equal(run(training=False), tokens)
    first, second = run(training=True), run(training=True)
    assert not torch.equal(first, second)
    can_change = tokens.ne(PAD)
    can_change[:, 0] = False
    assert torch.equal(first[~can_change], tokens[~can_change])
    changed = first.ne(tokens)
    assert first[changed].eq(UNK).all()
    assert changed[can_change].float().mean().item() == pytest.approx(0.4, abs=0.05)
    if model.has_latents:
        assert torch.equal(seen["encoder.body"], tokens)


@each(LANGUAGE_MODELS)
def test_a_language_model_s_loss_is_cross_entropy(make_system, flags):
    task, model, criterion = make_system(flags)
    assert not hasattr(model, "encoder")
    sample = batch(task, list(range(5)), pad_to=25)
    loss, _, logged = criterion(model, sample)
    logits, extra = model(**sample["net_input"])
    assert extra["posterior"] is None
    log_probs = torch.log_softmax(logits, dim=-1)
    at_targets = log_probs.gather(-1, sample["target"].unsqueeze(-1)).squeeze(-1)
    expected = -at_targets[sample["target"].ne(PAD)].sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    prev = sample["net_input"]["prev_output_tokens"]
    torch.testing.assert_close(
        model.sentence_nll(None, prev, sample["target"]).sum().float(), expected, rtol=1e-5, atol=0
    )
    # its source tells it nothing
    sample["net_input"]["src_tokens"] = sample["net_input"]["src_tokens"].flip(0)
    assert torch.equal(model(**sample["net_input"])[0], logits)
    with metrics.aggregate() as log:
        task.reduce_metrics([logged], criterion)
    names = log.get_smoothed_values().keys()
    assert names >= {"loss", "nll_loss", "ppl"}
    assert not names & {"kl_loss", "kl_nats", "kl_weight", "elbo_ppl", "active_units"}
