"""Everything a report shows, asked of the model once.

Shape legend: N sentences, L latent width.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fairseq import utils
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import evaluate
from fairseq_vat.evaluation.representations import measure_isotropy
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures import active_units, collapse
from fairseq_vat.measures.principal_components import Projection, project
from fairseq_vat.report.corpus import Corpus, with_target
from fairseq_vat.report.facts import facts

# of examples, so that a page can be read; in words
_SHORTEST, _LONGEST = 4, 25
# beyond the longest sentence, for outputs that say more than it
_EXTRA_LENGTH = 10
# mutual information's time grows with the square of the latents it takes
_MI_LATENTS = 5000


@dataclass(frozen=True)
class Settings:
    """How much is shown.

    Attributes:
        prior_std: of the latents' prior N(0, prior_std^2 I).
        examples: sentences that are decoded, and draws from the prior.
        samples: draws of each.
        steps: sentences of an interpolation, its ends included.
        beam: width of the beam search.
        seed: of all draws.
    """

    prior_std: float
    examples: int = 8
    samples: int = 4
    steps: int = 6
    beam: int = 5
    seed: int = 1


@dataclass(frozen=True)
class Example:
    """A numbered sentence: its row in the corpus, and what the model makes of it."""

    number: int
    row: int
    text: str
    reconstruction: str
    samples: list[str]


@dataclass(frozen=True)
class Content:
    """What `page.build` writes down.

    Attributes:
        facts: name and text of each of the checkpoint's properties.
        architecture: its name, such as ``vat_transformer``.
        latent_level: ``token`` or ``sentence``.
        updates: of the checkpoint.
        corpus: the sentences.
        figures: of `evaluate.figures`, over the corpus.
        warning: one line if the posterior has collapsed.
        kl_L: KL of each dimension, in nats per latent.
        variance_L: variance over latents of each dimension's posterior mean.
        isotropy: of `measure_isotropy`; None where `isotropy_error` says why there is none.
        map: the sentences' pooled latents on their first two principal components.
        examples: reconstructed and sampled.
        prior: decoded draws from the prior.
        ways: interpolations, each with the numbers of the two examples at its ends.
    """

    facts: dict[str, str]
    architecture: str
    latent_level: str
    updates: int
    corpus: Corpus
    figures: dict[str, Any]
    warning: str | None
    kl_L: Tensor
    variance_L: Tensor
    isotropy: dict[str, Any] | None
    isotropy_error: str | None
    map: Projection
    examples: list[Example]
    prior: list[str]
    ways: list[tuple[int, int, list[str]]]
    settings: Settings


def gather(
    vat: VATHubInterface,
    corpus: Corpus,
    settings: Settings,
    stage: Callable[[str], None] = lambda name: None,
) -> Content:
    """Measure and decode.

    Args:
        vat: the model; its subwords aren't used, the corpus has them.
        corpus: the sentences.
        settings: how much.
        stage: told what comes next; called `STAGES` times.
    """
    vat = VATHubInterface(vat.cfg, vat.task, vat.model, bpe=None, max_tokens=vat.max_tokens)
    stage("measures")
    found, kl_L, variance_L = _measure(vat, corpus, settings)
    stage("isotropy")
    isotropy, isotropy_error = None, None
    try:
        isotropy = measure_isotropy(vat, corpus.pieces, seed=settings.seed, words=12)
    except VATError as error:  # a collapsed model's representations may have no direction
        isotropy_error = str(error)
    stage("map")
    projection = project(torch.from_numpy(vat.embed(corpus.pieces)))
    stage("reconstructions")
    longest = max(len(line.split()) for line in corpus.pieces)
    search = {"beam": settings.beam, "max_len_a": 0.0, "max_len_b": longest + _EXTRA_LENGTH}
    rows = choose_examples(corpus.texts, settings.examples)
    chosen = [corpus.pieces[row] for row in rows]
    reconstructions = vat.reconstruct(chosen, **search)
    stage("samples")
    draws = vat.sample(chosen, settings.samples, seed=settings.seed, **search)
    stage("samples from the prior")
    # lengths of the training data may be beyond the longest of these sentences
    prior = vat.sample_prior(
        settings.examples,
        length=_prior_length(vat, corpus),
        prior_std=settings.prior_std,
        seed=settings.seed,
        beam=settings.beam,
    )
    stage("interpolations")
    pairs = [(n, n + 1) for n in range(0, min(len(rows), 6) - 1, 2)]
    ways = vat.interpolate(
        [chosen[a] for a, _ in pairs], [chosen[b] for _, b in pairs], settings.steps, **search
    )
    join = corpus.join
    return Content(
        facts=facts(vat, settings.prior_std),
        architecture=str(vat.cfg.model._name),
        latent_level=str(vat.model.encoder.latent_level),
        updates=vat.model.num_updates,
        corpus=corpus,
        figures=found,
        warning=collapse.warning(found),
        kl_L=kl_L,
        variance_L=variance_L,
        isotropy=isotropy,
        isotropy_error=isotropy_error,
        map=projection,
        examples=[
            Example(
                number + 1,
                row,
                corpus.texts[row],
                join(reconstructions[number]),
                [join(draw) for draw in draws[number]],
            )
            for number, row in enumerate(rows)
        ],
        prior=[join(line) for line in prior],
        ways=[
            (a + 1, b + 1, [join(line) for line in way])
            for (a, b), way in zip(pairs, ways, strict=True)
        ],
        settings=settings,
    )


STAGES = 7


def choose_examples(texts: list[str], count: int) -> list[int]:
    """Rows of at most `count` different sentences, evenly spaced among those of a good length.

    Where too few have 4 to 25 words, any length is good.
    """
    different = list({text: row for row, text in reversed(list(enumerate(texts)))}.values())
    different.sort()
    fitting = [row for row in different if _SHORTEST <= len(texts[row].split()) <= _LONGEST]
    if len(fitting) < count:
        fitting = different
    count = min(count, len(fitting))
    return [fitting[place * len(fitting) // count] for place in range(count)]


def _measure(
    vat: VATHubInterface, corpus: Corpus, settings: Settings
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """`evaluate.figures`, and KL and variance of the mean of each dimension, (L,)."""
    wanted = evaluate.EvaluationSettings(
        prior_std=settings.prior_std, iw_samples=0, seed=settings.seed, mi_latents=_MI_LATENTS
    )
    batches = (with_target(batch, vat.task) for batch in vat.batches(corpus.pieces))
    measured = evaluate.measure(vat.model, batches, wanted)
    tokens = sum(len(line.split()) + 1 for line in corpus.pieces)
    words = sum(max(1, len(text.split())) for text in corpus.texts)
    found = evaluate.figures(measured, tokens, words, wanted, vat.device)
    mean_NL = torch.cat(measured.means).double()
    posterior = DiagonalGaussian(mean_NL, torch.cat(measured.logvars).double())
    kl_L = Prior(settings.prior_std).kl(posterior).mean(dim=0)
    variance_L = active_units.mean_variance(
        len(mean_NL), mean_NL.sum(dim=0), mean_NL.square().sum(dim=0)
    )
    return found, kl_L, variance_L


def _prior_length(vat: VATHubInterface, corpus: Corpus) -> int | None:
    """None, for lengths as in the training data; the corpus's median where that isn't there."""
    if vat.model.encoder.latent_level == "sentence":
        return None
    folder = utils.split_paths(vat.task.cfg.data)[0]
    if os.path.exists(os.path.join(folder, f"{vat.task.cfg.train_subset}.idx")):
        return None
    lengths = sorted(len(line.split()) for line in corpus.pieces)
    return lengths[len(lengths) // 2]
