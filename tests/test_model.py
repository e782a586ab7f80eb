"""The model: latents, batching, precision, flags."""

from __future__ import annotations

import pytest
import torch
from helpers.models import batch, build

from fairseq_vat.errors import VATError
from fairseq_vat.latent.gaussian import LOG_VARIANCE_MAX, LOG_VARIANCE_MIN
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models.latent_encoder import join_draws

PAD = 1


@pytest.fixture(scope="module")
def built(data_dir):
    task, model, criterion = build(data_dir, "--dropout", "0")
    return task, model.eval(), criterion


def test_latents_are_the_decoder_s_memory(built):
    task, model, _ = built
    net_input = batch(task, [0, 1, 2])["net_input"]
    out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    positions, sentences = net_input["src_tokens"].t().shape
    for name in ("encoder_out", "latent_mean", "latent_logvar"):
        assert out[name][0].shape == (positions, sentences, 16)
    assert torch.equal(out["encoder_out"][0], out["latent_mean"][0])
    drawn = model.encoder.draw(out, seed=1)
    assert not torch.equal(drawn["encoder_out"][0], out["encoder_out"][0])
    prev = net_input["prev_output_tokens"]
    logits = model.decoder(prev, encoder_out=drawn)[0]
    assert torch.equal(logits, model(**net_input, latent_seed=1)[0])
    assert not torch.allclose(logits, model(**net_input)[0])


def test_draws_depend_on_seed_and_number_and_temperature(built):
    task, model, _ = built
    net_input = batch(task, [0, 1, 2])["net_input"]
    out = model.encoder(net_input["src_tokens"])

    def z(**how):
        return model.encoder.draw(out, **how)["encoder_out"][0]

    assert torch.equal(z(seed=1, number=2), z(seed=1, number=2))
    assert not torch.equal(z(seed=1, number=2), z(seed=2, number=2))
    assert not torch.equal(z(seed=1, number=2), z(seed=1, number=3))
    mean = out["latent_mean"][0]
    torch.testing.assert_close(z(seed=1, temperature=2.0) - mean, 2 * (z(seed=1) - mean))


@pytest.mark.parametrize("seed", [None, 5])
def test_a_sentence_s_loss_and_latents_ignore_its_batch_and_padding(built, seed):
    task, model, _ = built
    alone = [batch(task, [row]) for row in range(6)]
    losses, logits = [], {}
    for sample in alone:
        x, _ = model(**sample["net_input"], latent_seed=seed)
        logits[sample["id"].item()] = x[0]
        _, extra = model(**sample["net_input"], latent_seed=seed, target=sample["target"])
        losses.append(extra["likelihood"].nll + Prior(0.4).kl(extra["posterior"]).sum())
    for pad_to in (None, 25):
        together = batch(task, list(range(6)), pad_to)
        x, extra = model(**together["net_input"], latent_seed=seed)
        for row, number in enumerate(together["id"].tolist()):
            length = logits[number].size(0)
            torch.testing.assert_close(x[row, :length], logits[number], rtol=0, atol=1e-5)
        keep = ~extra["latent_padding_mask"].t().unsqueeze(-1)
        kl = (Prior(0.4).kl(extra["posterior"]) * keep).sum()
        _, extra = model(**together["net_input"], latent_seed=seed, target=together["target"])
        total = extra["likelihood"].nll + kl
        torch.testing.assert_close(total, sum(losses), rtol=1e-5, atol=1e-4)


def test_reordering_keeps_a_sentence_s_things_together(built):
    task, model, _ = built
    net_input = batch(task, [0, 1, 2])["net_input"]
    out = model.encoder(net_input["src_tokens"])
    order = torch.tensor([2, 2, 0])
    reordered = model.encoder.reorder_encoder_out(out, order)
    assert reordered.keys() == out.keys()
    for row, old in enumerate(order.tolist()):
        assert torch.equal(reordered["encoder_out"][0][:, row], out["encoder_out"][0][:, old])
        assert torch.equal(reordered["latent_mean"][0][:, row], out["latent_mean"][0][:, old])
        assert torch.equal(reordered["latent_logvar"][0][:, row], out["latent_logvar"][0][:, old])
        assert reordered["latent_key"][0][row] == out["latent_key"][0][old]
        mask = "encoder_padding_mask"
        assert torch.equal(reordered[mask][0][row], out[mask][0][old])


def test_draws_are_joined_side_by_side(built):
    task, model, _ = built
    net_input = batch(task, [0, 1])["net_input"]
    out = model.encoder(net_input["src_tokens"])
    draws = [model.encoder.draw(out, 1, k) for k in range(3)]
    joined = join_draws(draws)
    assert joined["encoder_out"][0].shape[1] == 6
    for row in range(6):
        expected = draws[row % 3]["encoder_out"][0][:, row // 3]
        assert torch.equal(joined["encoder_out"][0][:, row], expected)
        mask = out["encoder_padding_mask"][0][row // 3]
        assert torch.equal(joined["encoder_padding_mask"][0][row], mask)


@pytest.mark.parametrize("extreme", [-60000.0, 60000.0])
def test_log_variance_is_bounded_in_the_model(data_dir, extreme):
    task, model, criterion = build(data_dir)
    torch.nn.init.constant_(model.encoder.head.logvar.bias, extreme)
    net_input = batch(task, [0, 1, 2])["net_input"]
    logvar = model.encoder(net_input["src_tokens"])["latent_logvar"][0]
    assert logvar.min() >= LOG_VARIANCE_MIN and logvar.max() <= LOG_VARIANCE_MAX
    loss, _, _ = criterion(model.train(), batch(task, [0, 1, 2]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


FLAGS = [
    "--encoder-layers 1 --decoder-layers 3",
    "--encoder-embed-dim 24 --decoder-embed-dim 24 --encoder-ffn-embed-dim 40",
    "--encoder-embed-dim 24 --decoder-embed-dim 32 --no-share-all-embeddings",
    "--no-share-all-embeddings --share-decoder-input-output-embed",
    "--encoder-attention-heads 4 --decoder-attention-heads 8 --decoder-ffn-embed-dim 48",
    "--latent-dim 5",
    "--latent-dim 64",
    "--activation-fn gelu",
    "--dropout 0.3 --attention-dropout 0.2 --activation-dropout 0.1",
    "--encoder-normalize-before --decoder-normalize-before",
    "--decoder-normalize-before --no-decoder-final-norm",
    "--encoder-learned-pos --decoder-learned-pos",
    "--encoder-layerdrop 0.2 --decoder-layerdrop 0.2",
    "--no-token-positional-embeddings",
    "--layernorm-embedding",
    "--no-scale-embedding",
    "--latent-dim 32 --cross-self-attention",
    "--checkpoint-activations",
    "--quant-noise-pq 0.1 --quant-noise-pq-block-size 4",
]


@pytest.mark.parametrize("flags", FLAGS)
def test_transformer_flags_train_and_decode(data_dir, flags):
    task, model, criterion = build(data_dir, *flags.split())
    sample = batch(task, [0, 1, 2, 3])
    loss, _, _ = criterion(model.train(), sample)
    loss.backward()
    assert torch.isfinite(loss)
    if "layerdrop" not in flags:
        unused = [name for name, p in model.named_parameters() if p.grad is None]
        assert unused == []
    hypotheses = task.inference_step(task.build_generator([model], _Generation()), [model], sample)
    assert len(hypotheses) == 4


class _Generation:
    """As much of fairseq's generation configuration as a generator needs."""

    beam, nbest, max_len_b, temperature = 2, 1, 12, 1.0


def test_flags_change_the_model(data_dir):
    _, model, _ = build(data_dir, "--encoder-layers", "1", "--latent-dim", "5")
    assert len(model.encoder.body.layers) == 1
    assert len(model.decoder.layers) == 2
    assert model.encoder.head.mean.out_features == 5
    assert model.decoder.layers[0].encoder_attn.kdim == 5
    assert model.encoder.body.embed_tokens is model.decoder.embed_tokens
    _, untied, _ = build(data_dir, "--no-share-all-embeddings")
    assert untied.encoder.body.embed_tokens is not untied.decoder.embed_tokens


def test_defaults_are_the_paper_s(data_dir):
    _, model, criterion = build(data_dir, "--arch", "vat_transformer")
    cfg = model.cfg
    for side in (cfg.encoder, cfg.decoder):
        shape = (side.layers, side.attention_heads, side.embed_dim, side.ffn_embed_dim)
        assert shape == (4, 8, 128, 512)
    assert (cfg.dropout, cfg.activation_fn, cfg.latent_dim) == (0.1, "relu", 128)
    assert model.decoder.output_projection.weight is model.encoder.body.embed_tokens.weight
    assert criterion.cfg.prior_std == 0.4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--latent-dim 0", "--latent-dim must be at least 1"),
        ("--latent-dim 5 --cross-self-attention", "--latent-dim 5 doesn't fit"),
        ("--encoder-attention-heads 5", "--encoder-embed-dim 32 can't be divided"),
        ("--decoder-embed-dim 64", "give --no-share-all-embeddings"),
    ],
)
def test_widths_that_do_not_fit_are_named(data_dir, flags, message):
    with pytest.raises(VATError, match=message):
        build(data_dir, *flags.split())
