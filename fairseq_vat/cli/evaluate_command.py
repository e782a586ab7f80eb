"""``fairseq-vat evaluate``: every measure of a checkpoint over a subset of the data."""

import argparse
from functools import partial
from pathlib import Path

from fairseq_vat.cli.checkpoint import add_model_arguments
from fairseq_vat.cli.evaluation_table import evaluation_tables
from fairseq_vat.cli.flags import above, add_number, at_least, seed
from fairseq_vat.cli.tables import add_output_flags, show
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.errors import VATError
from fairseq_vat.text.pieces import PIECE_KINDS

# flags that `evaluation.evaluate.evaluate` has keywords for, of the same names
_KEYWORDS = (
    *("max_tokens", "batch_size", "prior_std", "seed", "samples", "iw_samples"),
    *("mi_draws", "mi_batch", "mi_latents", "bleu_sentences", "remove_bpe"),
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a checkpoint: nll, KL, ELBO, mutual information, active units, BLEU",
        description="Measures a checkpoint over a subset of the data and prints tables, or with "
        "--json one object.  docs/measures.md says what each figure means.  No figure depends on "
        "--batch-size or --max-tokens.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--gen-subset", default="test", metavar="SPLIT", help="of the data (default: %(default)s)"
    )
    add_output_flags(parser)
    add = partial(add_number, parser, kind=at_least(1))
    add("--sentences", "measure only the first N (default: all)")
    parser.add_argument("--first", type=at_least(1), dest="sentences", help=argparse.SUPPRESS)
    parser.add_argument(
        "--truncate", action="store_true", help="cut sentences that are too long for the model"
    )
    add("--batch-size", "sentences at a time")
    add("--max-tokens", "tokens at a time, padding counted (default: 4000 without --batch-size)")
    add(
        "--prior-std",
        "standard deviation of the latents' prior in the measures (default: the training's); the "
        "latents' noise stays that of the training",
        kind=above(0),
        metavar="S",
    )
    add("--seed", "of the draws", 1, kind=seed)
    add("--samples", "draws a sentence for the nll from samples", 1)
    add(
        "--iw-samples",
        "draws a sentence, K, for the importance-weighted nll; 0: leave it out",
        50,
        kind=at_least(0),
    )
    add("--mi-draws", "draws over which mutual information is averaged; its spread is over them", 5)
    add("--mi-batch", "sentences a batch of mutual information", 32)
    add(
        "--mi-latents",
        "mutual information over the whole set takes so many latents at most, chosen by chance: "
        "its time grows with their square",
        20000,
    )
    add("--beam", "width of the beam search for BLEU", 5)
    parser.add_argument("--no-bleu", action="store_true", help="leave beam search and BLEU out")
    add("--bleu-sentences", "BLEU of the first N sentences only")
    parser.add_argument(
        "--remove-bpe",
        choices=("auto", *PIECE_KINDS),
        default="auto",
        help="how pieces are joined into words; auto goes by what the dictionary's entries "
        "look like (default: %(default)s)",
    )
    parser.add_argument(
        "--gpt2-encoder-json",
        metavar="FILE",
        type=Path,
        help="vocab.json, where the entries are GPT-2's numbers (default: the one in DATA or the "
        "folder around it)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.data is None:
        raise VATError("--data is needed: the folder of fairseq-vat prepare or fairseq-preprocess")
    with quiet():
        from fairseq_vat.evaluation.evaluate import evaluate
        from fairseq_vat.hub.loading import load_model

        truncate = {"truncate": True} if args.truncate else {}  # else as in the training
        loaded = load_model(args.path, args.data, "cpu" if args.cpu else None, **truncate)
        found = evaluate(
            loaded,
            args.gen_subset,
            first=args.sentences,
            beam=None if args.no_bleu else args.beam,
            gpt2_vocabulary=args.gpt2_encoder_json,
            **{name: getattr(args, name) for name in _KEYWORDS},
        )
    show(args, {"checkpoint": args.path, "data": args.data, **found}, evaluation_tables)
