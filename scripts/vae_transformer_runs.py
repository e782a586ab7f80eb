"""What the VAE-Transformer paper trains: its systems in an order, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairseq_vat.evaluation.training_log import Record

SYSTEMS = (
    *("vae_transformer", "transformer_decoder_lm", "vae_lstm", "lstm_decoder_lm"),
    *("vae_gru", "gru_decoder_lm", "vae_gpt2"),
)
ANNEALINGS = ("none", "linear", "cyclic")
# not the paper's: linear annealing with so many nats of a sentence's KL that cost nothing
FREE_BITS, FREE_NATS = "free-bits", 20
# with every seed; all others with the first
_SEVERAL_SEEDS = ("vae_transformer-linear", "vae_transformer-cyclic", "transformer_decoder_lm")
# at every width of the latents, where none is asked for
_SEVERAL_WIDTHS = ("vae_transformer-cyclic",)
WIDTHS = (64, 32)
BATCH = 32


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        data: name of the data set.
        system: of `SYSTEMS`.
        annealing: of `ANNEALINGS`, or `FREE_BITS`; None for a language model.
        latent_dim: width of the latents; None for a language model.
        seed: fairseq's.
    """

    data: str
    system: str
    annealing: str | None
    latent_dim: int | None
    seed: int

    @property
    def name(self) -> str:
        """System and annealing."""
        return self.system if self.annealing is None else f"{self.system}-{self.annealing}"

    @property
    def folder(self) -> str:
        """Under the recipe's folder."""
        width = "" if self.latent_dim is None else f"-z{self.latent_dim}"
        return f"{self.data}/{self.name}{width}-seed{self.seed}"


def plan(
    data: Sequence[str],
    systems: Sequence[str],
    annealings: Sequence[str],
    widths: Sequence[int] | None,
    seeds: Sequence[int],
) -> list[Run]:
    """The runs in their order: all with the first seed, further seeds, further widths.

    Args:
        data: names of the data sets.
        systems: of `SYSTEMS`.
        annealings: of `ANNEALINGS`, and `FREE_BITS`, for systems with latents.
        widths: of the latents; None takes 64 for all, and 32 for `_SEVERAL_WIDTHS`.
        seeds: all of them for `_SEVERAL_SEEDS`, the first for the others.
    """
    further = _SEVERAL_WIDTHS if widths is None else None  # None: all systems
    first, *more = widths or WIDTHS
    runs = []
    for width, seed in [(first, seed) for seed in seeds] + [(width, seeds[0]) for width in more]:
        for name in data:
            for system in systems:
                language_model = system.endswith("_lm")
                for annealing in (None,) if language_model else annealings:
                    run = Run(name, system, annealing, None if language_model else width, seed)
                    if seed != seeds[0] and run.name not in _SEVERAL_SEEDS:
                        continue
                    if width != first and (
                        language_model or (further is not None and run.name not in further)
                    ):
                        continue
                    runs.append(run)
    return runs


def training_flags(run: Run, sentences: int, epochs: int) -> list[str]:
    """The paper's settings (section 4, and 4.1 for annealing) as flags of `fairseq-train`.

    Args:
        run: what is trained.
        sentences: of the training text.
        epochs: 50 in the paper; the annealing is scaled with them.
    """
    lr = "1e-4" if run.data in ("sst2", "air") else "1e-3"
    positions = str(max_positions(run.data))
    batches = -(-sentences // BATCH)
    updates = epochs * batches
    flags = ["--task", "variational_lm", "--arch", run.system]
    flags += ["--criterion", "token_kl_cross_entropy", "--prior-std", "1", "--kl-weight", "1"]
    if run.latent_dim is not None:
        flags += ["--latent-dim", str(run.latent_dim)]
    # "reaches 1 at a certain step, after which" it stays there; which, the paper doesn't say
    linear = ["--kl-annealing", "linear", "--kl-annealing-updates", str(updates // 2)]
    flags += {
        None: [],
        "none": ["--kl-annealing", "constant"],
        "linear": linear,
        FREE_BITS: [*linear, "--free-bits", str(FREE_NATS)],
        "cyclic": ["--kl-annealing", "cyclic", "--kl-annealing-updates", str(updates)],
    }[run.annealing]
    if run.annealing == "cyclic":
        flags += ["--kl-annealing-cycles", "5", "--kl-annealing-ratio", "0.5"]
    flags += ["--optimizer", "fused_adam", "--adam-betas", "(0.9, 0.999)", "--weight-decay", "0.1"]
    flags += ["--lr", lr, "--lr-scheduler", "cosine", "--min-lr", "1e-7", "--lr-shrink", "1"]
    # the learning rate's cosine starts anew every ten epochs
    flags += ["--lr-period-updates", str(batches * min(epochs, 10))]
    # what is no multiple of 8 would be left out of the batches
    flags += ["--batch-size", str(BATCH), "--required-batch-size-multiple", "1"]
    flags += ["--max-epoch", str(epochs), "--truncate", "--max-source-positions", positions]
    flags += ["--max-target-positions", positions, "--seed", str(run.seed)]
    flags += ["--best-checkpoint-metric", valid_metric(run), "--no-epoch-checkpoints"]
    # saved at each epoch's end: fairseq validates whenever it saves
    return [*flags, "--num-workers", "0", "--log-format", "simple", "--log-interval", "100"]


def valid_metric(run: Run) -> str:
    """What training logs of the validation set: the ELBO, or a language model's likelihood."""
    return "ppl" if run.annealing is None else "elbo_ppl"


def max_positions(data: str) -> int:
    """Tokens that a sentence is cut at, both of its ends counted."""
    return 256 if data == "wikitext2" else 64


def epochs_of(records: Sequence[Record]) -> int:
    """The last epoch that was trained as a whole."""
    return max((record.epoch for record in records if record.kind == "train"), default=0)


def best_epoch(records: Sequence[Record], metric: str) -> tuple[int | None, int]:
    """The epoch with the least of a validation's figures, and for how many none was less.

    As in fairseq, one with the same figure is no better, but is the one that is kept.
    """
    figures = {r.epoch: r.stats[metric] for r in records if r.kind == "valid" and metric in r.stats}
    if not figures:
        return None, 0
    least = min(figures.values())
    best = sorted(epoch for epoch, figure in figures.items() if figure == least)
    return best[-1], max(figures) - best[0]
