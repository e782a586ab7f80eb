#!/usr/bin/env python3
"""Rate, distortion, and what latent draws are worth, for one or more checkpoints.

    python scripts/rate_distortion.py DATA --path CHECKPOINT ... --lm CHECKPOINT \\
        --sentencepiece-model FILE --text held-out.txt \\
        --wordnet /usr/share/wordnet --train-text train.txt --json FILE --figure FILE --show 10

All checkpoints, and the language model (transformer_decoder_lm, trained apart), have the same
dictionary and subwords. docs/draws.md defines each figure.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from draw_statistics import Frequencies, Kinds, draw_figures, open_wordnet, same_kind
from fairseq import utils
from fairseq.data import LanguagePairDataset
from latent_tables import block, counted
from tqdm import tqdm

from fairseq_vat.cli.flags import Parser, above, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.sentence_measures import EvaluationSettings, measure
from fairseq_vat.evaluation.texts import bleu_figures
from fairseq_vat.files import write_json
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import LoadedModel, build_bpe, load_model, prior_of
from fairseq_vat.text.cutting import cut
from fairseq_vat.text.lines import read_lines
from fairseq_vat.text.pieces import Pieces

# key of a checkpoint's figures, the column's head, how it is written
COLUMNS = (
    ("path", "checkpoint", "s"),
    ("kl", "KL, nats", ".3f"),
    ("bleu_mean", "BLEU, mean", ".1f"),
    ("exact_match", "exact", ".3f"),
    ("accuracy", "accuracy", ".3f"),
    ("bleu_draws", "BLEU, draws", ".1f"),
    ("nll_draws", "nll, draws, nats", ".3f"),
    ("changed", "changed", ".3f"),
    ("distinct", "distinct", ".2f"),
    ("kept", "words kept", ".3f"),
    ("ppl_ratio_mean", "ppl ratio, mean", ".2f"),
    ("ppl_ratio", "draws", ".2f"),
    ("ppl_ratio_changed", "changed draws", ".2f"),
    ("only_substitutions", "only words", ".3f"),
    ("substitutions", "substitutions", ",d"),
    ("same_pos", "same POS", ".3f"),
    ("same_pos_random", "(random)", ".3f"),
    ("similar", "similar", ".3f"),
    ("similar_random", "(random)", ".3f"),
)


def batches(
    task: Any, tokens: Sequence[torch.Tensor], device: torch.device, max_tokens: int, name: str
) -> Iterator[dict[str, Any]]:
    """fairseq's batches with targets of sentences as tokens, as a split of the data has them."""
    start = [task.dictionary.bos()] if task.start_token else []
    sources = [torch.cat((sentence.new_tensor(start), sentence)) for sentence in tokens]
    pairs = LanguagePairDataset(
        *(sources, [len(source) for source in sources], task.dictionary),
        *(tokens, [len(sentence) for sentence in tokens], task.dictionary),
        left_pad_source=False,
        left_pad_target=False,
    )
    order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
    bar = tqdm(desc=name, total=len(tokens), unit=" sentences", leave=False, disable=None)
    with bar:
        for numbers in pairs.batch_by_size(
            order, max_tokens=max(max_tokens, len(sources[order[-1]]))
        ):
            sample = pairs.collater([pairs[number] for number in numbers])
            yield utils.apply_to_sample(lambda x: x.to(device), sample)
            bar.update(len(numbers))


class Fluency:
    """-log p of sentences under a language model, each scored once.

    Args:
        loaded: the language model.
        binarize: a sentence's tokens.
        max_tokens: in a batch.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        binarize: Callable[[str], torch.Tensor],
        max_tokens: int,
    ):
        self._loaded, self._binarize, self._max_tokens = loaded, binarize, max_tokens
        self._nll: dict[str, float] = {}

    def perplexity(self, sentences: Sequence[str]) -> float | None:
        """Per word, the sentences' ends predicted, too; None for no sentence."""
        new = list(dict.fromkeys(text for text in sentences if text not in self._nll))
        tokens = [cut(self._binarize(text), self._loaded.task.room) for text in new]
        every = batches(self._loaded.task, tokens, self._loaded.device, self._max_tokens, "LM")
        for batch in every if new else ():
            prev = batch["net_input"]["prev_output_tokens"]
            nlls = self._loaded.model.sentence_nll(None, prev, batch["target"])
            for number, nll in zip(batch["id"].tolist(), nlls.tolist(), strict=True):
                self._nll[new[number]] = nll
        words = sum(max(1, len(text.split())) for text in sentences)
        return math.exp(math.fsum(self._nll[x] for x in sentences) / words) if sentences else None


@torch.no_grad()
def likelihoods(
    vat: VATHubInterface, tokens: Sequence[torch.Tensor], args: argparse.Namespace
) -> dict[str, float]:
    """Rate, nll and accuracy, in nats per token, the sentences' ends counted."""
    prior_std = prior_of(vat.cfg, vat.model, args.prior_std).std
    settings = EvaluationSettings(prior_std, args.samples, iw_samples=0, seed=args.seed, mi_draws=1)
    how = (vat.task, tokens, vat.device, args.max_tokens)
    measured = measure(vat.model, batches(*how, "nll"), settings)
    correct = 0
    for batch in batches(*how, "accuracy"):
        _, extra = vat.model(**batch["net_input"], target=batch["target"], count_correct=True)
        correct += int(extra["likelihood"].n_correct)
    count = sum(map(len, tokens))
    return {
        "prior_std": prior_std,
        "kl": math.fsum(measured.kl) / count,
        "nll_mean": math.fsum(measured.nll) / count,
        "nll_draws": math.fsum(measured.nll_samples) / count,
        "accuracy": correct / count,
    }


def held_out(
    path: str, vat: VATHubInterface, room: int, count: int | None
) -> tuple[list[str], list[torch.Tensor]]:
    """Every n-th of the sentences of a text that fit and have no unknown subword; their tokens."""
    pieces = [vat.apply_bpe(line) for line in read_lines(path)]
    unknown = vat.task.dictionary.unk()
    every = [(vat.remove_bpe(line), vat.binarize(line)) for line in pieces]
    fitting = [pair for pair in every if len(pair[1]) <= room and unknown not in pair[1]]
    if not fitting:
        raise VATError(f"--text {path}: no sentence has at most {room - 1} known subwords")
    count = min(count or len(fitting), len(fitting))
    chosen = fitting[:: len(fitting) // count][:count]
    print(f"{count:,} of {len(every):,} sentences; {len(every) - len(fitting):,} too long or with "
          "an unknown subword", file=sys.stderr)  # fmt: skip
    return [text for text, _ in chosen], [tokens for _, tokens in chosen]


def show(sources: Sequence[str], means: Sequence[str], draws: Sequence[list[str]], n: int) -> None:
    """Every k-th sentence, so that n are spread over all, with its mean and its draws."""
    for number in range(0, len(sources), max(1, len(sources) // n))[:n]:
        source, mean = sources[number], means[number]
        first = "= the sentence" if mean == source else mean
        block(source, f"mean: {first}", *counted(draws[number], mean))


def run(args: argparse.Namespace) -> None:
    """Check everything, then measure a checkpoint after the other."""
    if (args.wordnet is None) != (args.train_text is None):
        raise VATError("--wordnet and --train-text go together")
    kinds = Kinds(open_wordnet(args.wordnet)) if args.wordnet else None
    model = args.sentencepiece_model
    bpe = build_bpe("sentencepiece", sentencepiece_model=model) if model else None
    device = "cpu" if args.cpu else None
    lm = load_model(args.lm, args.data, device)
    if lm.model.has_latents:
        raise VATError(f"--lm {args.lm} has latents: give a language model's checkpoint")
    room = lm.task.room

    def load(path: str) -> VATHubInterface:
        loaded = load_model(path, args.data, device)
        return VATHubInterface(loaded.cfg, loaded.task, loaded.model, bpe, args.max_tokens)

    for path in args.path:  # a mistake shows before hours of work
        vat = load(path)
        room = min(room, vat.task.room)
    sources, tokens = held_out(args.text, vat, room, args.sentences)
    tokenizer = Pieces.of(lm.task.dictionary).bleu_tokenizer
    fluency = Fluency(lm, lambda text: vat.binarize(vat.apply_bpe(text)), args.max_tokens)
    judge = None
    if kinds:
        frequencies = Frequencies(read_lines(args.train_text))
        judge = partial(same_kind, kinds=kinds, frequencies=frequencies, seed=args.seed)
    settings = {key: value for key, value in vars(args).items() if key != "path"}
    settings["sentences"] = len(sources)
    rows = []
    for path in args.path:
        vat = load(path)
        how = {"beam": args.beam, "max_len_b": room - 1}
        row = {"path": path, "updates": vat.model.num_updates, **likelihoods(vat, tokens, args)}
        means = vat.reconstruct(sources, **how)
        draws = vat.sample(sources, args.samples, args.temperature, args.seed, **how)
        of_mean = bleu_figures(means, sources, tokenizer)
        repeated = [source for source in sources for _ in range(args.samples)]
        of_draws = bleu_figures([draw for every in draws for draw in every], repeated, tokenizer)
        row |= {"bleu_mean": of_mean.get("bleu"), "exact_match": of_mean["exact_match"]}
        row |= {"bleu_draws": of_draws.get("bleu"), "signature": of_mean["signature"]}
        row |= draw_figures(sources, draws, fluency.perplexity, judge)
        # what the decoder does to a sentence without a draw
        means_alone = [[mean] for mean in means]
        row["of_mean"] = draw_figures(sources, means_alone, fluency.perplexity, judge)
        row["ppl_ratio_mean"] = row["of_mean"]["ppl_ratio"]
        rows.append(row)
        if args.json:  # as far as it got
            write_json(args.json, {"settings": settings, "checkpoints": rows})
        if args.show > 0:
            print(f"**{path}**\n\n```")
            show(sources, means, draws, args.show)
            print("```\n")
    print(table(rows, COLUMNS, "plain"))
    if args.figure:
        import sweep_plots  # matplotlib takes long to import

        sweep_plots.rate_distortion(rows, args.figure)


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder with the training's dict.txt")
    parser.add_argument("--path", nargs="+", required=True, metavar="CHECKPOINT")
    parser.add_argument("--lm", required=True, metavar="CHECKPOINT", help="a language model's")
    parser.add_argument("--sentencepiece-model", metavar="FILE", help="default: words")
    parser.add_argument("--text", required=True, metavar="FILE", help="held-out sentences")
    add_number(parser, "--sentences", "of the text (default: all)", kind=at_least(1))
    add_number(parser, "--samples", "draws a sentence", 4, at_least(1), "K")
    add_number(parser, "--temperature", "of the draws", 1.0, above(0), "T")
    add_number(parser, "--beam", "width of the beam search", 5, at_least(1))
    add_number(parser, "--seed", "of the draws", 1)
    add_number(parser, "--prior-std", "default: the checkpoint's", kind=above(0), metavar="S")
    add_number(parser, "--max-tokens", "in a batch", 8192, at_least(1))
    parser.add_argument("--wordnet", metavar="FOLDER", help="compare exchanged words by it")
    parser.add_argument("--train-text", metavar="FILE", help="for words' frequencies")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N sentences")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figure", metavar="FILE")
    parser.add_argument("--cpu", action="store_true", help="leave a CUDA device alone")
    args = parser.parse_args()
    with parser.one_line_errors(), quiet():
        run(args)


if __name__ == "__main__":
    main()
