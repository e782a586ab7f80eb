"""Every measure of a model over a subset of the data, as plain numbers.

Shape legend: P latents of a sentence, N latents of the data set, L latent width, D draws for mutual
information.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor
from tqdm import tqdm

from fairseq_vat.evaluation.sentence_measures import EvaluationSettings, Measured, measure
from fairseq_vat.evaluation.subset import Subset
from fairseq_vat.evaluation.texts import bleu_figures
from fairseq_vat.hub.loading import LoadedModel, prior_of
from fairseq_vat.measures import active_units, collapse
from fairseq_vat.measures.mutual_information import (
    choose_latents,
    mutual_information,
    mutual_information_over_batches,
    over_draws,
)
from fairseq_vat.text.pieces import Pieces, find_gpt2_vocabulary, to_text

# beyond the longest sentence, for outputs that say more than it
_EXTRA_LENGTH = 10
DEFAULT_MAX_TOKENS = 4000
_AT_A_TIME = 1 << 16  # latents in double precision
_LATENT_FIGURES = (
    *("latents", "kl_nats", "penalty_nats", "least_kl_prior_std", "mi_batches", "mi"),
    *("marginal_kl", "active_units", "active_units_scaled"),
)


def evaluate(
    loaded: LoadedModel,
    split: str = "test",
    *,
    first: int | None = None,
    max_tokens: int | None = None,
    batch_size: int | None = None,
    prior_std: float | None = None,
    beam: int | None = 5,
    bleu_sentences: int | None = None,
    remove_bpe: str = "auto",
    gpt2_vocabulary: Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Every figure of docs/measures.md of a checkpoint over a subset of its task's data.

    Args:
        loaded: of `load_model`, with ``truncate=True`` if sentences may be cut.
        max_tokens: in a batch, padding counted; `DEFAULT_MAX_TOKENS` without `batch_size`.
        prior_std: of the latents' prior in the measures; None takes the training's.
        beam: of the beam search for BLEU; None leaves both out.
        remove_bpe: how pieces are joined into words, one of `PIECE_KINDS`; ``auto`` goes by what
            the dictionary's entries look like.
        gpt2_vocabulary: vocab.json, where the entries are GPT-2's numbers; None looks for it beside
            the data.
        **settings: of `EvaluationSettings`.

    Returns:
        what was measured, `figures`, ``reconstruction`` (`bleu_figures` and ``beam``) and
        ``warning``, a line for a model that ignores its latents; None where one doesn't apply.
    """
    model, task, device = loaded.model, loaded.task, loaded.device
    has_latents = model.has_latents
    subset = Subset(task, split, first)
    vocabulary = gpt2_vocabulary or find_gpt2_vocabulary(utils.split_paths(task.cfg.data)[0])
    if remove_bpe == "auto":
        pieces = Pieces.of(task.target_dictionary, vocabulary)
    else:
        pieces = Pieces(remove_bpe, vocabulary)
        pieces.check(task.target_dictionary)
    if has_latents:
        prior_std = prior_of(loaded.cfg, model, prior_std).std
    wanted = EvaluationSettings(prior_std if has_latents else 1.0, **settings)
    if batch_size is None and max_tokens is None:
        max_tokens = DEFAULT_MAX_TOKENS
    with _progress("measures", len(subset)) as bar:
        batches = subset.batches(max_tokens, batch_size, device)
        measured = measure(model, batches, wanted, bar.update)
    words, tokens = subset.words(pieces), subset.tokens
    found = {
        "updates": model.num_updates,
        "subset": split,
        "sentences": len(subset),
        "words": words,
        "tokens": tokens,
        "cut": subset.cut,
        "blank": subset.blank,
        "pieces": pieces.kind,
        "latent_level": str(model.encoder.latent_level) if has_latents else None,
        "prior_std": prior_std if has_latents else None,
        "latent_noise": str(model.cfg.latent_noise) if has_latents else None,
        "noise_std": model.encoder.noise_std if has_latents else None,
        "seed": wanted.seed,
        **figures(measured, tokens, words, wanted, device),
        "reconstruction": None,
    }
    if has_latents and beam is not None:
        count = min(bleu_sentences or len(subset), len(subset))
        batches = subset.batches(max_tokens, batch_size, device, first=count)
        longest = subset.longest + _EXTRA_LENGTH
        with _progress("beam search", count) as bar:
            outputs, sentences = reconstruct(
                model, task, batches, beam, longest, pieces, bar.update
            )
        bleu = bleu_figures(outputs, sentences, pieces.bleu_tokenizer)
        found["reconstruction"] = {"beam": beam, **bleu}
    found["warning"] = collapse.warning(found)
    return found


@torch.no_grad()
def reconstruct(
    model: Any,
    task: Any,
    batches: Iterable[dict[str, Any]],
    beam: int,
    max_length: int,
    pieces: Pieces,
    progress: Callable[[int], None] = lambda sentences: None,
) -> tuple[list[str], list[str]]:
    """Decode sentences from their latents' mean with fairseq's beam search.

    Args:
        max_length: longest output, its end of sentence not counted.  The same for all sentences, so
            that no output depends on what it is batched with.

    Returns:
        outputs and sentences as text, in the data set's order.
    """
    settings = GenerationConfig(beam=beam, nbest=1, max_len_a=0, max_len_b=max_length)
    generator = task.build_generator([model], settings)
    dictionary = task.target_dictionary
    found: dict[int, tuple[str, str]] = {}
    for batch in batches:
        numbers = batch["id"].tolist()
        hypotheses = task.inference_step(generator, [model], batch)
        for number, target_S, best in zip(numbers, batch["target"], hypotheses, strict=True):
            found[number] = (
                to_text(best[0]["tokens"].cpu(), dictionary, pieces),
                to_text(target_S.cpu(), dictionary, pieces, escape_unk=True),
            )
        progress(len(numbers))
    outputs, sentences = zip(*(found[number] for number in sorted(found)), strict=True)
    return list(outputs), list(sentences)


def _progress(name: str, sentences: int) -> tqdm:
    """A bar on a terminal; on anything else nothing."""
    # disable=None: where standard error is no terminal
    return tqdm(
        desc=name, total=sentences, unit=" sentences", unit_scale=True, leave=False, disable=None
    )


def figures(
    measured: Measured, tokens: int, words: int, settings: EvaluationSettings, device: Any = "cpu"
) -> dict[str, Any]:
    """The figures of docs/measures.md; None where one doesn't apply.

    Args:
        tokens: target tokens of the set, ends of sentences counted.

    Returns:
        plain numbers, nested: ``nll``, ``nll_mean``, ``nll_samples``, ``nll_prior``, ``kl``,
        ``penalty``, ``neg_elbo`` and ``iw_nll`` each per sentence, word and token.
    """

    def spread(*columns: list[float], perplexity: bool = True) -> dict[str, float | None] | None:
        if not all(columns):
            return None
        total = math.fsum(math.fsum(column) for column in columns)
        found = {
            "per_sentence": total / len(columns[0]),
            "per_word": total / words,
            "per_token": total / tokens,
            "bits_per_token": total / tokens / math.log(2),
        }
        if perplexity:  # exp(KL) is none of anything, nor is exp(penalty)
            found["ppl_per_word"] = _perplexity(total / words)
            found["ppl_per_token"] = _perplexity(total / tokens)
        return found

    has_latents = bool(measured.kl)
    found: dict[str, Any] = {
        "nll": None if has_latents else spread(measured.nll),
        "nll_mean": spread(measured.nll) if has_latents else None,
        "nll_samples": spread(measured.nll_samples),
        "nll_prior": spread(measured.nll_prior),
        "kl": spread(measured.kl, perplexity=False),
        "penalty": spread(measured.penalty, perplexity=False),
        "neg_elbo": spread(measured.nll_samples, measured.kl),
        "iw_nll": spread(measured.iw_nll),
        "samples": settings.samples if has_latents else None,
        "iw_samples": settings.iw_samples if has_latents else None,
        "ess": _ess(measured.ess),
        "latent_gain": _latent_gain(measured, tokens) if has_latents else None,
    }
    of_latents = _latent_figures(measured, settings, device) if has_latents else {}
    return found | dict.fromkeys(_LATENT_FIGURES) | of_latents


def _latent_figures(
    measured: Measured, settings: EvaluationSettings, device: Any
) -> dict[str, Any]:
    counts = [len(mean_PL) for mean_PL in measured.means]
    # a token-level set has millions of latents: they stay on the CPU, and of draws one is held
    # apart from the sentences' at a time
    posteriors = [torch.cat(parts) for parts in (measured.means, measured.logvars)]
    count, width = posteriors[0].shape
    kl_nats = math.fsum(measured.kl) / count

    def draws() -> Iterator[Tensor]:
        for number in range(len(measured.draws[0])):
            yield torch.cat([draws_DPL[number] for draws_DPL in measured.draws])

    def chosen(z_NL: Tensor) -> list[Tensor]:
        rows = choose_latents([*posteriors, z_NL], settings.mi_latents, generator)
        return [x_NL.to(device) for x_NL in rows]

    mi_batches = over_draws(
        mutual_information_over_batches(*posteriors, z_NL, counts, settings.mi_batch, device)
        for z_NL in draws()
    )
    generator = torch.Generator().manual_seed(settings.seed)
    mi = over_draws(mutual_information(*chosen(z_NL)) for z_NL in draws())
    sum_L, square_L = posteriors[0].new_zeros(2, width, dtype=torch.float64)
    variance = 0.0
    for mean_nL, logvar_nL in zip(*(x_NL.split(_AT_A_TIME) for x_NL in posteriors), strict=True):
        sum_L += mean_nL.double().sum(dim=0)
        square_L += mean_nL.double().square().sum(dim=0)
        variance += float(logvar_nL.double().exp().sum())
    square = (float(square_L.sum()) + variance) / (count * width)

    def active(threshold: float) -> dict[str, Any]:
        found = active_units.count_active_units(count, sum_L, square_L, threshold)
        return {"count": found, "of": width, "threshold": threshold}

    return {
        "latents": count,
        "kl_nats": kl_nats,
        "penalty_nats": math.fsum(measured.penalty) / count if measured.penalty else None,
        # the mean of KL(q || N(0, p^2 I)) is least at the p^2 that z^2 has on average
        "least_kl_prior_std": math.sqrt(square),
        "mi_batches": mi_batches | {"batch_sentences": min(settings.mi_batch, len(counts))},
        "mi": mi,
        "marginal_kl": kl_nats - mi["paired"],
        "active_units": active(active_units.THRESHOLD),
        "active_units_scaled": active(active_units.THRESHOLD * settings.prior_std**2),
    }


def _ess(ess: list[float]) -> dict[str, float] | None:
    if not ess:
        return None
    ess_B = torch.tensor(ess, dtype=torch.float64)
    return {
        "mean": float(ess_B.mean()),
        "median": float(ess_B.quantile(0.5)),
        "percentile_5": float(ess_B.quantile(0.05)),
        "min": float(ess_B.min()),
    }


def _latent_gain(measured: Measured, tokens: int) -> dict[str, float | None]:
    """How much lower the nll is from a sentence's own latents than from the prior's."""
    prior = math.fsum(measured.nll_prior)
    gain = prior - math.fsum(measured.nll_samples)
    return {
        "per_token": gain / tokens,
        "bits_per_token": gain / tokens / math.log(2),
        "share": gain / prior if prior > 0 else None,
    }


def _perplexity(nats: float) -> float | None:
    """exp(nats); None where double precision has no number so large."""
    return math.exp(nats) if nats < 700 else None
