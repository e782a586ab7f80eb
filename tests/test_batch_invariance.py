"""A sentence's latents, likelihoods and scores are the same alone, in a batch, and padded further.

For every architecture, to 1e-5 of the larger of a figure and 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import batch, build
from helpers.systems import LANGUAGE_MODELS, SYSTEMS, TINY, each

from fairseq_vat.evaluation.sentence_measures import EvaluationSettings, measure
from fairseq_vat.tasks.generation import (
    LatentSampling,
    LatentSequenceGenerator,
    VariationalSequenceGenerator,
)

ROWS = list(range(6))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
MEASURES = EvaluationSettings(prior_std=0.4, samples=2, iw_samples=3, mi_draws=2)


def made(flags: list[str], data_dir: Path) -> tuple[Any, Any]:
    """Task and model, whose outputs aren't as flat as an untrained layer's."""
    task, model, _ = build(data_dir, *flags[:2], *TINY, *flags[2:])
    with torch.no_grad():
        model.decoder.output_projection.weight.mul_(3)
    return task, model.eval()


def batchings(task: Any) -> list[list[dict[str, Any]]]:
    """Each sentence alone; all together; all together, in another order, with more padding."""
    alone = [batch(task, [row]) for row in ROWS]
    assert len({sample["ntokens"] for sample in alone}) > 2  # lengths differ
    return [alone, [batch(task, ROWS)], [batch(task, ROWS[3:], 25), batch(task, ROWS[:3], 25)]]


@each({**SYSTEMS, **LANGUAGE_MODELS})
def test_latents_and_likelihoods(flags, data_dir):
    task, model = made(flags, data_dir)
    alone, *others = (vars(measure(model, one, MEASURES)) for one in batchings(task))
    expected = {"nll"}
    if model.has_latents:
        expected |= {"nll_samples", "nll_prior", "kl", "iw_nll", "ess", "means", "logvars", "draws"}
    assert {name for name, values in alone.items() if values} == expected
    for other in others:
        for name, values in alone.items():
            for one, same in zip(values, other[name], strict=True):
                one, same = torch.as_tensor(one), torch.as_tensor(same)
                torch.testing.assert_close(same, one, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@each({**SYSTEMS, **LANGUAGE_MODELS})
def test_scores_of_generation(flags, data_dir):
    task, model = made(flags, data_dir)
    settings = {"beam_size": 3, "max_len_b": 12}
    generators = [LatentSequenceGenerator([model], task.dictionary, **settings)]
    if model.has_latents:
        generators.append(
            VariationalSequenceGenerator(
                [model], task.dictionary, LatentSampling(2, seed=4), nbest=2, **settings
            )
        )
    for generator in generators:
        alone, *others = (
            {
                number: hypotheses
                for sample in one
                for number, hypotheses in zip(
                    sample["id"].tolist(), generator.generate(None, sample), strict=True
                )
            }
            for one in batchings(task)
        )
        assert alone.keys() == {*ROWS} and all(alone.values())
        for other in others:
            for number, hypotheses in alone.items():
                for one, same in zip(hypotheses, other[number], strict=True):
                    assert same["tokens"].tolist() == one["tokens"].tolist()
                    for name in ("score", "positional_scores"):
                        torch.testing.assert_close(same[name], one[name], **CLOSE)


@pytest.mark.parametrize("level", ["token", "sentence"])
def test_padding_that_is_seen_would_be_told(level, data_dir):
    """The figures above do depend on what they must not see."""
    task, model = made(SYSTEMS[f"transformer-transformer-{level}"], data_dir)
    together = batch(task, ROWS, 25)
    together["net_input"]["src_tokens"][together["net_input"]["src_tokens"].eq(1)] = 5
    seen, unseen = (measure(model, [one], MEASURES) for one in (together, batch(task, ROWS)))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.tensor(seen.nll), torch.tensor(unseen.nll), **CLOSE)
