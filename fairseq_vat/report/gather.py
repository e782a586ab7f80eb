"""Everything a report shows, asked of the model once.

Shape legend: N sentences, L latent width, B sentences of a batch, T source and S target positions.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fairseq import utils
from sklearn.decomposition import PCA
from torch import Tensor

from fairseq_vat.criterions.config import annealing_of
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import evaluate
from fairseq_vat.evaluation.representations import measure_isotropy
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.measures import active_units, collapse
from fairseq_vat.models.config import RECURRENT
from fairseq_vat.report.sentences import Sentences, choose_examples

# beyond the longest sentence, for outputs that say more than it
_EXTRA_LENGTH = 10
# mutual information's time grows with the square of the latents it takes
_MI_LATENTS = 5000


@dataclass(frozen=True)
class ReportSettings:
    """How much is shown."""

    prior_std: float  # of the latents' prior N(0, prior_std^2 I)
    examples: int = 8  # sentences that are shown, and draws from the prior
    samples: int = 4
    steps: int = 6  # sentences of an interpolation, its ends included
    beam: int = 5
    seed: int = 1


@dataclass(frozen=True)
class Example:
    """A sentence shown, numbered from 1: its row among all, and what the model makes of it."""

    number: int
    row: int
    text: str
    reconstruction: str
    samples: list[str]


def gather(
    vat: VATHubInterface,
    sentences: Sentences,
    settings: ReportSettings,
    progress: Callable[[str], None] = lambda stage: None,
) -> SimpleNamespace:
    """Measure and decode: everything that `page.build` writes down.

    Args:
        vat: the model; its subwords aren't used, the sentences are in them.
    """
    vat = VATHubInterface(vat.cfg, vat.task, vat.model, bpe=None, max_tokens=vat.max_tokens)
    pieces, texts = sentences.pieces, sentences.texts
    progress("measures")
    measures, kl_L, variance_L = _measure(vat, sentences, settings)
    progress("isotropy")
    isotropy, isotropy_error = None, None
    try:
        isotropy = measure_isotropy(vat, pieces, seed=settings.seed, words=12)
    except VATError as error:  # a collapsed model's representations may have no direction
        isotropy_error = str(error)
    progress("map")
    coordinates_N2, explained_2 = principal_components(vat.embed(pieces))
    progress("reconstructions")
    longest = max(len(line.split()) for line in pieces)
    search = {"beam": settings.beam, "max_len_a": 0.0, "max_len_b": longest + _EXTRA_LENGTH}
    outputs = [sentences.join(line) for line in vat.reconstruct(pieces, **search)]
    progress("samples")
    rows = choose_examples(texts, settings.examples)
    chosen = [pieces[row] for row in rows]
    draws = vat.sample(chosen, settings.samples, seed=settings.seed, **search)
    progress("samples from the prior")
    # lengths of the training data may be beyond the longest of these sentences
    length = _prior_length(vat, sentences)
    common = {"prior_std": settings.prior_std, "seed": settings.seed, "beam": settings.beam}
    prior_samples = vat.sample_prior(settings.examples, length=length, **common)
    progress("interpolations")
    firsts = range(0, min(len(rows), 6) - 1, 2)
    paths = vat.interpolate(
        [chosen[n] for n in firsts], [chosen[n + 1] for n in firsts], settings.steps, **search
    )
    return SimpleNamespace(
        description=describe_model(vat, settings.prior_std),
        architecture=str(vat.cfg.model._name),
        latent_level=str(vat.model.encoder.latent_level),
        updates=vat.model.num_updates,
        sentences=sentences,
        measures=measures,  # of `evaluate.figures`
        # given back word for word
        equal=sum(text == output for text, output in zip(texts, outputs, strict=True)),
        warning=collapse.warning(measures),
        kl_L=kl_L,  # of each dimension, in nats per latent
        variance_L=variance_L,  # over latents, of each dimension's posterior mean
        isotropy=isotropy,  # None where the error says why there is none
        isotropy_error=isotropy_error,
        coordinates_N2=coordinates_N2,
        explained_2=explained_2,
        examples=[
            Example(n + 1, row, texts[row], outputs[row], [sentences.join(d) for d in draws[n]])
            for n, row in enumerate(rows)
        ],
        prior_samples=[sentences.join(line) for line in prior_samples],
        interpolations=[  # each with the numbers of the two examples at its ends
            (n + 1, n + 2, [sentences.join(line) for line in path])
            for n, path in zip(firsts, paths, strict=True)
        ],
        settings=settings,
    )


def principal_components(vectors_NL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plane in which vectors differ most, by scikit-learn.

    A component's entry of largest magnitude is positive, so that the same vectors always give the
    same picture (scikit-learn since 1.5). Components that the vectors don't have are 0.

    Returns:
        coordinates (N, 2), centred, and each component's share of the variance, (2,), 0 where all
        vectors are equal.
    """
    count = min(2, *vectors_NL.shape)
    pca = PCA(count, svd_solver="full")
    with np.errstate(invalid="ignore"):  # shares of no variance
        coordinates = pca.fit_transform(vectors_NL.astype(np.float64))
    explained = np.nan_to_num(pca.explained_variance_ratio_)
    return np.pad(coordinates, ((0, 0), (0, 2 - count))), np.pad(explained, (0, 2 - count))


def _measure(
    vat: VATHubInterface, sentences: Sentences, settings: ReportSettings
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """`evaluate.figures`, and KL and variance of the mean of each dimension, (L,)."""
    wanted = evaluate.EvaluationSettings(
        prior_std=settings.prior_std, iw_samples=0, seed=settings.seed, mi_latents=_MI_LATENTS
    )
    batches = (_with_target(batch, vat.task) for batch in vat.batches(sentences.pieces))
    measured = evaluate.measure(vat.model, batches, wanted)
    mean_NL = torch.cat(measured.means).double()
    tokens = sum(len(line.split()) + 1 for line in sentences.pieces)
    words = sum(max(1, len(text.split())) for text in sentences.texts)
    measures = evaluate.figures(measured, tokens, words, wanted, vat.device)
    posterior = DiagonalGaussian(mean_NL, torch.cat(measured.logvars).double())
    variance_L = active_units.mean_variance(
        len(mean_NL), mean_NL.sum(dim=0), mean_NL.square().sum(dim=0)
    )
    return measures, Prior(settings.prior_std).kl(posterior).mean(dim=0), variance_L


def _with_target(batch: dict[str, Any], task: Any) -> dict[str, Any]:
    """A batch with what the decoder is to write, as in training: the source, start token apart."""
    target_BS = batch["net_input"]["src_tokens"][:, int(task.start_token) :]
    pad, eos = task.target_dictionary.pad(), task.target_dictionary.eos()
    previous_BS = target_BS.roll(1, dims=1)
    previous_BS[:, 0] = eos
    # the end of a shorter sentence would be where the training has padding
    previous_BS = previous_BS.masked_fill(target_BS.eq(pad), pad)
    net_input = {**batch["net_input"], "prev_output_tokens": previous_BS}
    return {**batch, "net_input": net_input, "target": target_BS}


def _prior_length(vat: VATHubInterface, sentences: Sentences) -> int | None:
    """None, for lengths as in the training data; the sentences' median where that isn't there."""
    data = vat.task.cfg.data
    if vat.model.encoder.latent_level == "sentence" or not data:  # the checkpoint has them
        return None
    folder = utils.split_paths(data)[0]
    if os.path.exists(os.path.join(folder, f"{vat.task.cfg.train_subset}.idx")):
        return None
    lengths = sorted(len(line.split()) for line in sentences.pieces)
    return lengths[len(lengths) // 2]


def describe_model(vat: VATHubInterface, prior_std: float) -> dict[str, str]:
    """What a checkpoint is: names and texts of its architecture, latents, prior and training."""
    model = vat.model
    parts = "; ".join(_describe_part(model.cfg, side) for side in ("encoder", "decoder"))
    return {
        "Architecture": f"{vat.cfg.model._name}: {parts}",
        "Updates": f"{model.num_updates:,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Latents": f"one for each {model.encoder.latent_level}, "
        f"{model.encoder.latent_dim:,} dimensions",
        "Prior of the latents": f"N(0, p\u00b2 I), p = {prior_std:g}",
        "Noise of the latents": f"{model.cfg.latent_noise}, of standard deviation "
        f"{model.encoder.noise_std:g}",
        "KL in the loss": _describe_kl(vat.cfg.criterion),
        "Dictionary": f"{len(vat.task.target_dictionary):,} entries",
        **({"Data": str(vat.task.cfg.data)} if vat.task.cfg.data else {}),
    }


def _describe_part(cfg: Any, side: str) -> str:
    """Such as ``transformer encoder, 4 layers, 128 wide``."""
    kind = getattr(cfg, f"{side}_type")
    text, own = f"{kind} {side}", getattr(cfg, side)
    if kind in RECURRENT:
        wide = getattr(cfg, f"{side}_hidden_size")
    elif kind == "transformer":
        wide = own.embed_dim
    else:  # the flags for layers and widths aren't its own
        return text
    return f"{text}, {own.layers} layer{'s' if own.layers != 1 else ''}, {wide:,} wide"


def _describe_kl(criterion: Any) -> str:
    """The weight, its annealing and what bounds it, in one line."""
    if getattr(criterion, "kl_weight", None) is None:
        return f"criterion {getattr(criterion, '_name', 'unknown')}, not this plugin's"
    schedule = _value(criterion.kl_annealing)
    text = f"weight {criterion.kl_weight:g}"
    if schedule != "constant":
        text += f", {schedule} annealing over {annealing_of(criterion).updates:,} updates"
    if schedule == "cyclic":
        text += f" in {criterion.kl_annealing_cycles} cycles"
    text += f"; {_value(criterion.kl_reduction)} over dimensions"
    if criterion.free_bits:
        text += f"; {criterion.free_bits:g} nats free per {_value(criterion.free_bits_per)}"
    return text


def _value(choice: Any) -> str:
    """Of an enumeration's member; a checkpoint may have the value only."""
    return str(getattr(choice, "value", choice))
