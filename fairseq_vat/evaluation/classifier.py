"""One trainer of classifiers, and the protocols by which it trains.

Two papers classify sentences by their latents. The VAE-Transformer's (sections 4.1.1 and 4.1.2)
trains one linear layer on a frozen encoder: `PAPER`, and `CONVERGED`, which goes on until nothing
gets better. The VAT's (section 6, table 5) has "a single dense layer with nonlinear activation and
Adam", on extracted features, for which it names SentEval (Conneau and Kiela 2018,
``senteval/tools/classifier.py``), `SENTEVAL`, or on an encoder trained along, `FINE_TUNING`.

Shape legend: N examples, B of a batch, K outputs, R classifiers trained side by side that differ in
their L2 penalty.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau

# batches are made of sentences of like length, out of so many batches' worth in random order
_WINDOW = 16
_MEASURED = 128  # examples of a batch that is only measured


@dataclass(frozen=True)
class Training:
    """How classifiers are trained."""

    epochs: int
    batch_size: int
    lr: float
    optimizer: Callable[..., torch.optim.Optimizer] = partial(torch.optim.Adam, fused=True)
    # which figure of the validation part is to be the best: ``loss`` (the least), or another one of
    # the scores (the highest)
    chosen_by: str = "accuracy"
    # None: the rate is constant. ``cosine``: see `cosine_schedule`. ``plateau``: it is constant
    # until 4 epochs have brought no lower validation loss, then a tenth, then a hundredth; when
    # that brings nothing either the training has converged and ends
    schedule: str | None = None
    # L2 penalty of each of the R classifiers, as Adam's ``weight_decay``
    penalties: tuple[float, ...] = (0.0,)
    look_every: int = 1
    # the training ends when more looks than this brought nothing better, counted from its start as
    # SentEval does; None: it never ends before its time
    tenacity: int | None = None


PAPER = Training(20, 32, 1e-4, partial(torch.optim.AdamW, weight_decay=0.1), "loss", "cosine")
CONVERGED = Training(500, 32, 1e-2, partial(torch.optim.AdamW, weight_decay=0), "loss", "plateau")
# SentEval's defaults, and the penalties it chooses from; its limit of 200 epochs is looked at
# before each four, not after
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
SENTEVAL = Training(204, 64, 1e-3, penalties=PENALTIES, look_every=4, tenacity=5)
FINE_TUNING = Training(5, 32, 1e-3)


class Target(Protocol):
    """What N examples are to be given."""

    def loss(self, logits_RBK: Tensor, numbers_B: Tensor) -> Tensor:
        """Mean over R and B."""

    def score(self, logits_NK: Tensor, numbers_N: Tensor) -> Any:
        """The figures of one classifier on some examples; logits are on the CPU."""


@dataclass(frozen=True)
class Fit:
    """One trained classifier, as it was after its best epoch."""

    epoch: int  # that epoch, from 1; of several as good, the first
    epochs: int
    converged: bool | None  # whether a training on a plateau ended by itself; None for another
    penalty: float
    scores: dict[str, Any]


def train(
    classifiers: nn.Module,
    target: Target,
    parts: Mapping[str, Tensor],
    training: Training,
    generator: torch.Generator,
    lengths: Sequence[int] | None = None,
    measured: Sequence[str] = ("test",),
    on_epoch: Callable[[torch.Generator], object] = lambda _: None,
    on_batch: Callable[[int], object] = lambda _: None,
) -> Fit:
    """Train R classifiers on ``train``; the best on ``valid``, and what other parts give then.

    Order of examples, draws and, from the generator's first seed, dropout are the generator's;
    torch's global generators are left as they were. Dropout is on in training and off in measuring.

    Args:
        classifiers: numbers of examples (B,) to logits (R, B, K). Where there are penalties, R is
            the first dimension of its parameters. They are trained in place, and end as after the
            last epoch.
        parts: numbers of examples (N,), int64.
        lengths: of all examples, so that batches hold examples of like length; None: they are put
            together by chance alone.
    """
    optimizer = training.optimizer(classifiers.parameters(), lr=training.lr)
    cosine = plateau = None
    if training.schedule == "cosine":
        cosine = cosine_schedule(optimizer, -(-len(parts["train"]) // training.batch_size))
    elif training.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=3, eps=0)
    converged = None if plateau is None else False
    best: list[Fit | None] = [None] * len(training.penalties)
    failures = [0] * len(best)

    def goodness(score: Any) -> float:
        value = getattr(score, training.chosen_by)
        # SentEval too takes a correlation that is undefined for 0
        return -value if training.chosen_by == "loss" else value or 0.0

    def look(part: str) -> list[Any]:
        return measure(classifiers, target, parts[part], lengths)

    with _seeded(generator.initial_seed()):
        for epoch in range(1, training.epochs + 1):
            classifiers.train()
            on_epoch(generator)
            for batch in batches(parts["train"], training.batch_size, lengths, generator):
                _update(classifiers, target, optimizer, batch, training.penalties)
                if cosine is not None:
                    cosine.step()
                on_batch(len(batch))
            if epoch % training.look_every and epoch < training.epochs:
                continue
            scores = look("valid")
            better = [
                (training.tenacity is None or failed <= training.tenacity)
                and (last is None or goodness(score) > goodness(last.scores["valid"]))
                for failed, last, score in zip(failures, best, scores, strict=True)
            ]
            others = {part: look(part) for part in measured if any(better) and part in parts}
            for number, penalty in enumerate(training.penalties):
                if better[number]:
                    every = {part: some[number] for part, some in others.items()}
                    every["valid"] = scores[number]
                    best[number] = Fit(epoch, epoch, None, penalty, every)
                else:
                    failures[number] += 1
            if plateau is not None:
                plateau.step(scores[0].loss)
                # a thousandth would be next
                converged = optimizer.param_groups[0]["lr"] < training.lr / 500
            if converged or (training.tenacity is not None and min(failures) > training.tenacity):
                break
    chosen = max((fit for fit in best if fit), key=lambda fit: goodness(fit.scores["valid"]))
    return replace(chosen, epochs=epoch, converged=converged)


@torch.no_grad()
def measure(
    classifiers: nn.Module,
    target: Target,
    numbers: Tensor,
    lengths: Sequence[int] | None = None,
) -> list[Any]:
    """The score of each on some of the examples, without dropout."""
    classifiers.eval()
    if lengths is not None:
        numbers = numbers[_of_like_length(numbers, lengths)]
    logits = [classifiers(batch).cpu() for batch in numbers.split(_MEASURED)]
    return [target.score(logits_NK, numbers) for logits_NK in torch.cat(logits, dim=1)]


def cosine_schedule(
    optimizer: torch.optim.Optimizer, updates_an_epoch: int
) -> CosineAnnealingWarmRestarts:
    """The learning rate of every update, as fairseq's ``cosine`` scheduler has it.

    At update t of a cosine of T updates, here 10 epochs, it is 1e-7 + (lr - 1e-7) (1 +
    cos(pi t / T)) / 2; at t = T the next begins (Loshchilov and Hutter 2017, "SGDR", equation 5).
    Both numbers are the VAE-Transformer paper's.
    """
    return CosineAnnealingWarmRestarts(optimizer, T_0=10 * updates_an_epoch, eta_min=1e-7)


def batches(
    numbers: Tensor, batch_size: int, lengths: Sequence[int] | None, generator: torch.Generator
) -> Iterator[Tensor]:
    """One epoch's batches in random order; with `lengths`, of examples of like length."""
    shuffled = numbers[torch.randperm(len(numbers), generator=generator)]
    if lengths is None:
        yield from shuffled.split(batch_size)
        return
    some = [
        batch
        for window in shuffled.split(batch_size * _WINDOW)
        for batch in window[_of_like_length(window, lengths)].split(batch_size)
    ]
    for number in torch.randperm(len(some), generator=generator).tolist():
        yield some[number]


def _update(
    classifiers: nn.Module,
    target: Target,
    optimizer: torch.optim.Optimizer,
    numbers_B: Tensor,
    penalties: Sequence[float],
) -> None:
    logits_RBK = classifiers(numbers_B)
    optimizer.zero_grad()
    # each one's loss is a mean of its own
    (target.loss(logits_RBK, numbers_B) * len(logits_RBK)).backward()
    if any(penalties):
        for parameter in classifiers.parameters():
            penalty_R11 = parameter.new_tensor(penalties).view(-1, 1, 1)
            parameter.grad += penalty_R11 * parameter.detach()
    optimizer.step()


def _of_like_length(numbers: Tensor, lengths: Sequence[int]) -> Tensor:
    return torch.tensor([lengths[number] for number in numbers.tolist()]).argsort(stable=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's global generators, which dropout draws from, for the time of the block."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
