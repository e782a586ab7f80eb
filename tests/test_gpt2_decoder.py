"""The GPT-2 decoder: GPT-2's own logits, incremental decoding, one softmax, clear refusals."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from helpers import gpt2
from helpers.gpt2 import END, dictionary

from fairseq_vat.compat.packages import import_transformers
from fairseq_vat.errors import VATError
from fairseq_vat.latent.likelihood import token_likelihood
from fairseq_vat.models import gpt2_weights
from fairseq_vat.models.config import VATTransformerConfig
from fairseq_vat.models.gpt2_decoder import GPT2Decoder
from fairseq_vat.models.presets import PRESETS
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.text.gpt2_vocabulary import ARCHITECTURE

pytest.importorskip("transformers")

LATENT = 6


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return gpt2.save(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def decoder(directory) -> GPT2Decoder:
    torch.manual_seed(1)
    made = gpt2.pretrained_decoder(directory, dictionary(), LATENT).eval()
    with torch.no_grad():  # cross-attention is new, so its output is next to nothing
        for name, parameter in made.named_parameters():
            if "cross" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made


def tokens(decoder: GPT2Decoder, rows: list[list[int]]) -> torch.Tensor:
    """prev_output_tokens of GPT-2 ids: the end of sentence first, padded on the right."""
    entries = decoder.dictionary
    longest = max(map(len, rows))
    return torch.tensor(
        [
            [entries.eos(), *(entries.index(str(i)) for i in row)]
            + [entries.pad()] * (longest - len(row))
            for row in rows
        ]
    )


def latents(lengths: list[int], seed: int = 0) -> dict[str, list[torch.Tensor]]:
    """An encoder's output; padded latents hold nonsense."""
    torch.manual_seed(seed)
    memory_PBL = torch.randn(max(lengths), len(lengths), LATENT)
    mask_BP = torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)
    return {"encoder_out": [memory_PBL], "encoder_padding_mask": [mask_BP]}


ROWS = [[5, 80, 256, 3, 3], [9, 7, 260], [100]]


@torch.no_grad()
def test_without_latents_it_is_the_pre_trained_gpt2(directory, decoder):
    bare = import_transformers("gpt2").GPT2LMHeadModel.from_pretrained(directory).eval()
    expected = bare(torch.tensor([[END, *ROWS[0]]])).logits
    logits, extra = decoder(tokens(decoder, ROWS[:1]))
    assert extra["attn"] == [None] and extra["inner_states"][0].shape == (6, 1, 32)
    eos = decoder.dictionary.eos()
    got = torch.cat((logits[..., 4:], logits[..., eos : eos + 1]), dim=-1)
    torch.testing.assert_close(got, expected)
    assert expected.std() > 0.1  # else everything would be close to everything

    silenced = gpt2.pretrained_decoder(directory, dictionary(), LATENT).eval()
    for block in silenced.gpt2.h:
        block.crossattention.c_proj.weight.zero_()
    torch.testing.assert_close(
        silenced(tokens(decoder, ROWS[:1]), encoder_out=latents([3]))[0], logits
    )
    assert not torch.allclose(
        decoder(tokens(decoder, ROWS[:1]), encoder_out=latents([3]))[0][..., 4:], logits[..., 4:]
    )


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[4, 2, 3], [1, 1, 1]])
def test_a_sentence_ignores_padding_of_tokens_and_latents(decoder, lengths):
    together = decoder(tokens(decoder, ROWS), encoder_out=latents(lengths))[0]
    for row, length in enumerate(lengths):
        alone = latents(lengths)
        alone["encoder_out"] = [alone["encoder_out"][0][:length, row : row + 1]]
        alone["encoder_padding_mask"] = [torch.zeros(1, length, dtype=torch.bool)]
        expected = decoder(tokens(decoder, ROWS[row : row + 1]), encoder_out=alone)[0][0]
        torch.testing.assert_close(together[row, : len(expected)], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[4, 2, 3], [1, 1, 1], None])
def test_incremental_decoding_is_the_full_forward_one_token_at_a_time(decoder, lengths):
    rows = [[5, 80, 256, 3], [9, 7, 260, 1], [100, 2, 2, 2]]
    prev = tokens(decoder, rows)
    encoder_out = lengths and latents(lengths)
    full = decoder(prev, encoder_out=encoder_out)[0]
    state: dict = {}
    order = torch.arange(3)
    widths = []
    decoder.gpt2.h[0].mlp.register_forward_hook(
        lambda module, inputs, output: widths.append(inputs[0].size(1))
    )
    for step in range(prev.size(1)):
        logits = decoder(prev[order, : step + 1], encoder_out=encoder_out, incremental_state=state)[
            0
        ]
        assert logits.shape[:2] == (len(order), 1)
        torch.testing.assert_close(logits[:, -1], full[order, step], rtol=1e-4, atol=1e-5)
        if step in (1, 3):  # beams change places, and one goes on twice; then a sentence is done
            choice = torch.tensor([2, 0, 0] if step == 1 else [0, 2])
            decoder.reorder_incremental_state_scripting(state, choice)
            order = order[choice]
            if encoder_out:
                encoder_out = {
                    "encoder_out": [encoder_out["encoder_out"][0][:, choice]],
                    "encoder_padding_mask": [encoder_out["encoder_padding_mask"][0][choice]],
                }
    assert widths == [1] * prev.size(1)


@pytest.mark.parametrize(
    "entries",
    [
        dictionary(),
        dictionary([7, 3, 100, 260], "madeupword0000"),
        dictionary([*range(0, END, 2), END, 1], "madeupword0000", "madeupword0001"),
    ],
    ids=["every id", "few ids", "the end of text's id too"],
)
def test_likelihood_is_the_logits_log_softmax_over_real_rows(directory, entries):
    decoder = gpt2.pretrained_decoder(directory, entries, LATENT).eval()
    words = [i for i in range(4, len(entries)) if entries[i] != str(END) and entries[i].isdigit()]
    torch.manual_seed(3)
    target = torch.tensor([*words, entries.eos(), entries.pad(), entries.pad(), words[0]])
    features = torch.randn(len(target), 32)
    logits = decoder.output_layer(features)
    real = {*words, entries.eos()}
    for index in range(len(entries)):
        assert bool(logits[:, index].isfinite().all()) == (index in real)
    kept = target.ne(entries.pad())
    log_probs = logits.log_softmax(-1)
    expected = -log_probs.gather(1, target.unsqueeze(1))[kept].sum()

    weight, columns, padding = decoder.scoring(target)
    assert len(weight) == len(real)
    for smoothing in (0.0, 0.1):
        likelihood = token_likelihood(features, weight, columns, padding, smoothing)
        torch.testing.assert_close(likelihood.nll, expected)
        mean = -log_probs[kept][:, sorted(real)].sum()
        share = smoothing / (len(real) - 1)
        smoothed = (1 - smoothing - share) * expected + share * mean
        torch.testing.assert_close(likelihood.loss, smoothed, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        counted = token_likelihood(features, weight, columns, padding, 0.0, True)
    assert counted.n_correct == (logits.argmax(-1).eq(target) & kept).sum()


def test_one_row_for_two_names_of_the_end(directory):
    entries = dictionary([END, 3])
    decoder = gpt2.pretrained_decoder(directory, entries, LATENT)
    _, columns, _ = decoder.scoring(torch.tensor([entries.eos(), entries.index(str(END))]))
    assert columns[0] == columns[1]
    assert decoder.output_layer(torch.zeros(1, 32))[0, entries.index(str(END))] == -math.inf


@torch.no_grad()
def test_a_beginning_of_text_of_its_own_begins(tmp_path):
    folder = gpt2.save(tmp_path / "gpt2", bos_token_id=0, eos_token_id=2)
    decoder = gpt2.pretrained_decoder(folder, dictionary(range(3, 20)), LATENT).eval()
    bare = import_transformers("gpt2").GPT2LMHeadModel.from_pretrained(folder).eval()
    expected = bare(torch.tensor([[0, 5, 6]])).logits
    got = decoder(tokens(decoder, [[5, 6]]))[0]
    torch.testing.assert_close(got[..., decoder.dictionary.eos()], expected[..., 2])
    torch.testing.assert_close(got[..., 4:], expected[..., 3:20])


@torch.no_grad()
def test_unknown_words_are_a_zero_vector_as_input_and_refused_as_target(decoder):
    entries = decoder.dictionary
    with mock.patch.object(decoder.gpt2, "forward", wraps=decoder.gpt2.forward) as forward:
        decoder(torch.tensor([[entries.eos(), entries.unk(), entries.index("5"), entries.pad()]]))
    embedded = forward.call_args.kwargs["inputs_embeds"][0]
    assert embedded.abs().sum(dim=1).ne(0).tolist() == [True, False, True, False]
    with pytest.raises(VATError, match=r"the data has <unk>.*--gpt2 DIR"):
        decoder.scoring(torch.tensor([entries.unk()]))


def test_gradients_reach_everything_with_and_without_checkpointing(directory):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(4)
        decoder = gpt2.pretrained_decoder(
            directory,
            dictionary(),
            LATENT,
            dropout=0.0,
            attention_dropout=0.0,
            checkpoint_activations=checkpointing,
        ).train()
        prev = tokens(decoder, ROWS)
        features, _ = decoder(prev, encoder_out=latents([4, 2, 3]), features_only=True)
        scoring = decoder.scoring(prev.flatten())
        token_likelihood(features.flatten(0, 1), *scoring).loss.backward()
        gradients.append({name: p.grad for name, p in decoder.named_parameters()})
    assert [name for name, grad in gradients[0].items() if grad is None] == []
    for name, grad in gradients[1].items():
        torch.testing.assert_close(grad, gradients[0][name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_checkpoint_needs_no_directory(decoder):
    again = GPT2Decoder(dictionary(), gpt2_weights.fresh(decoder.config_json), LATENT).eval()
    again.load_state_dict(decoder.state_dict())
    prev, encoder_out = tokens(decoder, ROWS), latents([4, 2, 3])
    assert torch.equal(
        again(prev, encoder_out=encoder_out)[0], decoder(prev, encoder_out=encoder_out)[0]
    )
    assert not any(name.startswith("_") for name in decoder.state_dict())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_attention_dropout_drops_the_latent_for_each_head_and_position(directory, share):
    """Attention to one latent is one weight of 1, so it is all or nothing of a head's share."""
    training = {"dropout": 0.0, "attention_dropout": share}
    decoder = gpt2.pretrained_decoder(directory, dictionary(), LATENT, **training).train()
    found = []
    decoder.gpt2.h[0].crossattention.register_forward_hook(lambda *call: found.append(call[2][0]))
    torch.manual_seed(1)
    row = [[5, 80, 256, 3, 3, 9, 7, 100, 4, 8, 12, 90, 77, 31, 6, 2]]
    decoder(tokens(decoder, row), encoder_out=latents([1]))
    added_SC = found[0][0].detach()
    kinds = len(torch.unique(added_SC.round(decimals=5), dim=0))
    assert kinds == (1 if share == 0 else 4)  # both of two heads, either, or none


# VAE-Transformer paper, table 1.  It doesn't say of what; these parts add up to it.
PAPER = 207_349_971
DIFFERENCES = {
    "two more tokens": 2 * 768,
    "an output layer of its own, with a bias": 50_259 * 768 + 50_259,
    "the encoder's embedding: 30,522 in place of 50,260": (30_522 - 50_260) * 768,
    "the encoder's positions are learned, 256": 256 * 768,
    "the encoder's layers: 512 in place of 3,072, no biases in attention": -2
    * ((3072 - 512) * (2 * 768 + 1) + 4 * 768),
    "no bias from the latent to GPT-2's width": -768,
    "keys and values of the latent for self-attention, in place of a cross-attention of its own":
    # of the latter queries, output and layer norm are left out
    -12 * (2 * (768 * 768 + 768) + 2 * 768),
}


def test_parameters_are_the_papers_but_for_these_parts():
    defaults = {field.name: field.default for field in fields(VATTransformerConfig)}
    values = {**defaults, **PRESETS["vae_gpt2"], "gpt2_config": json.dumps(ARCHITECTURE)}
    values |= {"max_source_positions": 64, "max_target_positions": 64, "start_token": True}
    words = SimpleNamespace(source_dictionary=dictionary(range(50_256)))
    with torch.device("meta"):  # shapes alone
        model = VATModel.build_model(Namespace(**values), words)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 205_730_432
    assert count + sum(DIFFERENCES.values()) == PAPER


def test_dropout_is_ours_and_not_the_directory_s(directory):
    training = {"dropout": 0.3, "attention_dropout": 0.2}
    config = gpt2.pretrained_decoder(directory, dictionary(), LATENT, **training).gpt2.config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.3, 0.3, 0.2)


def test_half_precision_and_torch_files_load_as_single(directory, tmp_path):
    from safetensors.torch import load_file

    state = {n: p.half() for n, p in load_file(directory / "model.safetensors").items()}
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    torch.save(state, tmp_path / "pytorch_model.bin")
    decoder = gpt2.pretrained_decoder(tmp_path, dictionary(), LATENT)
    assert {p.dtype for p in decoder.parameters()} == {torch.float32}
    saved = state["transformer.wte.weight"].float()
    assert torch.equal(decoder.gpt2.wte.weight, saved)


def _config(**changes):
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return spoil


def _torch_file(value):
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(value, folder / "pytorch_model.bin")

    return spoil


class _Harmful:
    def __reduce__(self):
        return (open, ("harm", "w"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "it has no config.json"),
        (_config(model_type="llama"), "model_type 'llama', not 'gpt2'"),
        (
            lambda f: (f / "model.safetensors").unlink(),
            "neither model.safetensors nor pytorch_model.bin",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut off"), "can't be read"),
        (_config(n_embd=64), "don't fit its config.json"),
        (_config(n_layer=3), r"lack \d+ of its tensors, such as h.2"),
        (_torch_file({"other": torch.zeros(1)}), r"lack \d+ of its tensors"),
        (_torch_file({"wte.weight": _Harmful()}), "can't be read"),
        (_config(activation_function="none"), "can't make a GPT-2 of these values"),
    ],
)
def test_a_directory_that_is_none_is_named(tmp_path, monkeypatch, spoil, message):
    monkeypatch.chdir(tmp_path)
    folder = gpt2.save(tmp_path / "own")
    spoil(folder)
    with pytest.raises(VATError, match=message) as caught:
        gpt2.pretrained_decoder(folder, dictionary(), LATENT)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("symbol", ["the", str(END + 1), "007", "-1", "²"])
def test_a_dictionary_of_another_vocabulary_is_named(directory, symbol):
    with pytest.raises(VATError, match=rf"dict.txt has '{symbol}'.*--gpt2 DIR"):
        gpt2.pretrained_decoder(directory, dictionary([1, 2], symbol), LATENT)


@pytest.mark.parametrize("config", ["{", "[]", '{"n_embd": 0}', '{"eos_token_id": 99999}'])
def test_a_configuration_that_is_none_is_named(config):
    with pytest.raises(VATError, match="--gpt2-config"):
        gpt2_weights.fresh(config)


def test_too_long_a_sentence_names_the_flag(decoder):
    with pytest.raises(VATError, match="41 tokens is longer than GPT-2's 40 positions"):
        decoder(tokens(decoder, [[1] * 40]))
    assert decoder.max_positions() == 40


def test_the_extra_is_named(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(VATError, match=r"pip install 'fairseq_vat\[gpt2\]'"):
        gpt2.pretrained_decoder(directory, dictionary(), LATENT)
