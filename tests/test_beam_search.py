"""The faster beam search against fairseq's own, untouched."""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fairseq import search
from fairseq.sequence_generator import SequenceGenerator
from helpers import gpt2
from helpers.models import build
from helpers.systems import LANGUAGE_MODELS, SYSTEMS, TINY, each

from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.tasks.beam_search import Columns, top_k
from fairseq_vat.tasks.generation import (
    LatentSampling,
    LatentSequenceGenerator,
    VariationalSequenceGenerator,
)

VOCABULARY = 2500  # several parts of a vocabulary, and the last one narrower
LENGTHS = [9, 7, 7, 5, 4]
SETTINGS = {
    "plain": {},
    "wide beam": {"beam_size": 30},
    "greedy": {"beam_size": 1},
    "length penalty": {"len_penalty": 2.0},
    "unnormalised": {"normalize_scores": False},
    "min length": {"min_len": 7},
    "max length": {"max_len_a": 0.5, "max_len_b": 2},
    "unknown penalised": {"unk_penalty": 5.0},
    "unknown preferred": {"unk_penalty": -9.0},
    "temperature": {"temperature": 0.7},
    "no repetition": {"no_repeat_ngram_size": 2},
    "suppressed": {"tokens_to_suppress": ("w1", "w2")},
}
# what a search is set to doesn't depend on the system: all of it for these, four for the others
SEARCHED = ("transformer-transformer-token", "transformer-addition-sentence", "gru-gru-sentence")
FEW = ("plain", "max length", "temperature", "no repetition")
TOKEN_LEVEL = SYSTEMS["transformer-transformer-token"]
STRATEGIES = {
    "sampling": lambda d: search.Sampling(d, sampling_topk=5),
    "top-p sampling": lambda d: search.Sampling(d, sampling_topp=0.8),
    "diverse beams": lambda d: search.DiverseBeamSearch(d, 2, 0.5),
    "diverse siblings": lambda d: search.DiverseSiblingsSearch(d, 0.5),
    "source length": lambda d: search.LengthConstrainedBeamSearch(d, 1, 0, 1, 0),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds a tiny system over a large vocabulary, once for the same flags: task and model."""
    folder = tmp_path_factory.mktemp("large")
    lines = [f"w{i} 1\n" for i in range(VOCABULARY - 4)]
    (Path(folder) / "dict.txt").write_text("".join(lines), encoding="utf-8")
    made: dict[tuple[str, ...], Any] = {}

    def system(flags: list[str], *more: str) -> tuple[Any, Any]:
        key = (*flags[:2], *TINY, *flags[2:], *more)
        if key not in made:
            task, model, _ = build(folder, *key)
            # a new output layer's distributions are nearly flat and never end a sentence
            weight_VC = model.decoder.output_projection.weight
            with torch.no_grad():
                weight_VC.copy_(torch.randn_like(weight_VC))
                weight_VC[task.dictionary.eos()] *= 5
                weight_VC[task.dictionary.unk()] *= 2
                for name, parameter in model.decoder.named_parameters():
                    if name.startswith("rnn"):  # nor does a new recurrence move much
                        parameter.mul_(4)
            made[key] = task, model.eval()
        return made[key]

    return system


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    """A batch of sentences of different lengths."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, VOCABULARY, (len(LENGTHS), LENGTHS[0]), generator=generator)
    tokens[:, 0] = 0
    for row, length in enumerate(LENGTHS):
        tokens[row, length - 1] = 2
        tokens[row, length:] = 1
    return {"net_input": {"src_tokens": tokens, "src_lengths": torch.tensor(LENGTHS)}}


class StockEncoder(torch.nn.Module):
    """An encoder as fairseq's own generator takes it, its latents at their mean or drawn."""

    def __init__(self, encoder: Any, number: int | None):
        super().__init__()
        self.encoder, self.number = encoder, number
        self.reorder_encoder_out = encoder.reorder_encoder_out

    def forward_torchscript(self, net_input: dict[str, Any]) -> Any:
        out = self.encoder(net_input["src_tokens"], net_input["src_lengths"])
        return out if self.number is None else self.encoder.draw(out, 1, self.number, 2.0)


class Stock(torch.nn.Module):
    """A model whose encoder is a `StockEncoder`."""

    def __init__(self, model: Any, number: int | None = None):
        super().__init__()
        self.decoder, self.get_normalized_probs = model.decoder, model.get_normalized_probs
        if model.has_latents:
            self.encoder = StockEncoder(model.encoder, number)


def same(found: list[list[Any]], expected: list[list[Any]]) -> None:
    assert [len(x) for x in found] == [len(x) for x in expected]
    for ours, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert ours["tokens"].tolist() == theirs["tokens"].tolist()
        for name in ("score", "positional_scores", "attention"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


def generators(task: Any, models: list[Any], settings: dict[str, Any]) -> tuple[Any, Any]:
    """Ours and fairseq's, with the same settings."""
    settings = {"beam_size": 4, "max_len_b": 14, **settings}
    ours = LatentSequenceGenerator(models, task.dictionary, **settings)
    return ours, SequenceGenerator([Stock(model) for model in models], task.dictionary, **settings)


@each({**SYSTEMS, **LANGUAGE_MODELS})
def test_hypotheses_and_scores_are_fairseq_s(make, sample, flags):
    task, model = make(flags)
    ends = set()
    whole = flags in [*map(SYSTEMS.get, SEARCHED), LANGUAGE_MODELS["transformer-lm"]]
    for settings in SETTINGS.values() if whole else map(SETTINGS.get, FEW):
        ours, theirs = generators(task, [model], settings)
        expected = theirs.generate(None, sample)
        same(ours.generate(None, sample), expected)
        ends |= {len(best["tokens"]) for sentence in expected for best in sentence}
    assert ends - {7, 15}  # some ended before the two limits made them


def test_a_decoder_with_an_output_layer_of_its_own(sample, tmp_path):
    entries = gpt2.dictionary()
    decoder = gpt2.pretrained_decoder(gpt2.save(tmp_path), entries, latent_dim=8)
    cfg = argparse.Namespace(precision="float32", emulate_bfloat16=False)
    model = VATModel(cfg, None, decoder).eval()
    for settings in SETTINGS.values():
        if "tokens_to_suppress" not in settings:  # symbols are numbers here
            ours, theirs = generators(argparse.Namespace(dictionary=entries), [model], settings)
            same(ours.generate(None, sample), theirs.generate(None, sample))


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_strategies_that_need_whole_distributions_get_them(make, sample, strategy):
    task, model = make(TOKEN_LEVEL)
    found = []
    for generator in generators(task, [model], {}):
        generator = type(generator)(
            [model] if isinstance(generator, LatentSequenceGenerator) else [Stock(model)],
            task.dictionary,
            beam_size=4,
            max_len_b=14,
            search_strategy=strategy(task.dictionary),
        )
        torch.manual_seed(1)
        found.append(generator.generate(None, sample))
    same(*found)


def test_prefixes(make, sample):
    task, model = make(TOKEN_LEVEL)
    prefix = sample["net_input"]["src_tokens"][:, 1:4].clone()
    prefix[1, 2] = task.dictionary.pad()
    ours, theirs = generators(task, [model], {})
    expected = theirs.generate(None, sample, prefix_tokens=prefix)
    same(ours.generate(None, sample, prefix_tokens=prefix), expected)
    assert expected[0][0]["tokens"][:3].tolist() == prefix[0].tolist()


@pytest.mark.parametrize("settings", [SETTINGS[name] for name in ("plain", "temperature")])
def test_ensembles(make, sample, settings):
    task, first = make(TOKEN_LEVEL)
    _, second = make(TOKEN_LEVEL, "--latent-dim", "12")
    ours, theirs = generators(task, [first, second], settings)
    same(ours.generate(None, sample), theirs.generate(None, sample))


@pytest.mark.parametrize("rows", [1024, 30, 8, 1])
@each({name: SYSTEMS[name] for name in ("transformer-transformer-token", "gru-gru-sentence")})
def test_draws_are_fairseq_s_decoding_of_each(make, sample, flags, rows, monkeypatch):
    monkeypatch.setattr("fairseq_vat.tasks.generation.MAX_ROWS", rows)
    task, model = make(flags)
    settings = {"beam_size": 4, "max_len_b": 14}
    generator = VariationalSequenceGenerator(
        [model], task.dictionary, LatentSampling(3, 2.0), nbest=2, **settings
    )
    draws = [
        SequenceGenerator([Stock(model, number)], task.dictionary, **settings).generate(
            None, sample
        )
        for number in range(3)
    ]
    expected = [[*chain(*(best[:2] for best in found))] for found in zip(*draws, strict=True)]
    same(generator.generate(None, sample), expected)


@pytest.mark.parametrize("limit", [("MAX_ROWS", 8), ("MAX_TOKENS", 80)])
def test_rounds_change_nothing(make, sample, limit, monkeypatch):
    task, model = make(TOKEN_LEVEL)
    ours, theirs = generators(task, [model], {})
    expected = theirs.generate(None, sample)
    monkeypatch.setattr(f"fairseq_vat.tasks.generation.{limit[0]}", limit[1])
    cleared = mock.Mock(wraps=ours.columns.clear)  # after each round
    monkeypatch.setattr(ours.columns, "clear", cleared)
    same(ours.generate(None, sample), expected)
    assert cleared.call_count == 3


def test_generators_of_different_beams_share_a_model(make, sample):
    task, model = make(TOKEN_LEVEL)
    wide, theirs = generators(task, [model], {"beam_size": 5})
    greedy, greedy_theirs = generators(task, [model], {"beam_size": 1})
    same(wide.generate(None, sample), theirs.generate(None, sample))
    same(greedy.generate(None, sample), greedy_theirs.generate(None, sample))
    same(wide.generate(None, sample), theirs.generate(None, sample))


@pytest.mark.parametrize("width", [10, 64, 640, 700, 2500])
@pytest.mark.parametrize("k", [1, 9])
def test_top_k(width, k):
    x = torch.randn(7, width, generator=torch.Generator().manual_seed(width))
    x[0, : width - 2] = -torch.inf
    values, columns = top_k(x, k)
    assert torch.equal(values, x.topk(k).values)
    assert torch.equal(values, x.gather(1, columns))


def test_columns_are_the_best_log_probabilities():
    generator = torch.Generator().manual_seed(1)
    x_RC = torch.randn(600, 8, generator=generator)
    weight_VC = torch.randn(VOCABULARY, 8, generator=generator)
    columns = Columns(special=4)
    columns.best = 10
    expected = (x_RC @ weight_VC.t()).log_softmax(dim=1)
    for found in (columns.of_features(x_RC, weight_VC), columns.of_logits(expected.clone())):
        assert torch.equal(columns.tokens[:, :4], torch.arange(4).expand(600, -1))
        torch.testing.assert_close(found, expected.gather(1, columns.tokens))
        torch.testing.assert_close(found[:, 4:], expected[:, 4:].topk(10).values)
