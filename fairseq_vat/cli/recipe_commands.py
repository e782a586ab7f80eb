"""``fairseq-vat prepare``, ``train`` and ``pack``: from text to a model to give away."""

import argparse
import shlex
import sys
from functools import partial

from fairseq_vat.cli.flags import add_number, at_least
from fairseq_vat.cli.terminal import quiet
from fairseq_vat.cli.text_commands import add_tokenization_flags, tokenization


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="make a training's data from raw text",
        description="Trains a sentencepiece vocabulary on the training text, encodes, and runs "
        "fairseq-preprocess: DIR/data-bin is what fairseq-train reads. What is there already, from "
        "the same text and options, is not made again.",
    )
    add_tokenization_flags(parser)
    add_number(parser, "--workers", "processes (default: all cores)", kind=at_least(1))
    parser.set_defaults(run=_prepare)

    parser = subparsers.add_parser(
        "train",
        allow_abbrev=False,
        help="train an experiment's model on binarised text",
        usage="%(prog)s PRESET DATA SAVE_DIR [options] [fairseq-train's flags]",
        description="Runs fairseq-train with the flags of an experiment, and prints the command. "
        "It trains in bfloat16 where the machine has instructions for it; else on a GPU in fp16, "
        "on a CPU in float32. The same command goes on where a stopped run was. The log is "
        "SAVE_DIR/train.log.",
        epilog="All other flags are fairseq-train's and win over the experiment's, such as\n"
        "--kl-weight 0.2; --flags lists those of the plugin.",
    )
    parser.add_argument("preset", metavar="PRESET", help="a name; --presets lists them")
    parser.add_argument("data", metavar="DATA", help="binarised text, of fairseq-vat prepare")
    parser.add_argument("save_dir", metavar="SAVE_DIR", help="checkpoints and log go there")
    where = parser.add_mutually_exclusive_group()
    at_least_one = at_least(1)
    where.add_argument("--gpus", type=at_least_one, metavar="N", help="N GPUs, a process each")
    where.add_argument("--cpus", type=at_least_one, metavar="N", help="N processes on the CPU")
    add_number(parser, "--nodes", "machines that it runs on", 1, at_least_one)
    add_number(parser, "--node-rank", "which of them this is, from 0", 0, at_least(0))
    parser.add_argument("--master", metavar="HOST:PORT", help="of the first of several machines")
    parser.add_argument("--dry-run", action="store_true", help="print the command alone")
    text = "list the experiments and their folder, and exit"
    parser.add_argument("--presets", action=_Print, nargs=0, const=_presets, help=text)
    text = "list the plugin's flags and exit"
    parser.add_argument("--flags", action=_Print, nargs=0, const=plugin_flags, help=text)
    parser.set_defaults(run=_train, takes_further_flags=True)

    parser = subparsers.add_parser(
        "pack",
        help="a checkpoint as a small folder to give away",
        description="Writes model.pt in half precision, dict.txt, the subwords' files and a card, "
        "README.md, into DIR. fairseq-generate --path opens it too.",
    )
    parser.add_argument("checkpoint", metavar="MODEL", help="a checkpoint, or the folder of one")
    parser.add_argument("output", metavar="DIR", help="is made")
    parser.add_argument("--single", action="store_true", help="keep single precision")
    parser.set_defaults(run=_pack)


class _Print(argparse.Action):
    """Prints what its `const` gives, and ends."""

    def __call__(self, parser, *_):
        print(self.const(), end="")
        parser.exit()


def _presets() -> str:
    from fairseq_vat.recipes.train import preset_folder, preset_names

    names = "\n".join(preset_names())
    return f"{names}\n\nfairseq-hydra-train --config-dir {preset_folder()}\n"


def plugin_flags() -> str:
    """The flags of architecture, task and criterion, as argparse prints them."""
    from fairseq_vat.plugin import TokenKLCrossEntropy, VariationalLMTask, VATModel

    parser = argparse.ArgumentParser(prog="fairseq-train", usage=argparse.SUPPRESS, add_help=False)
    for title, part in (
        ("--arch vat_transformer and its presets", VATModel),
        ("--task variational_lm", VariationalLMTask),
        ("--criterion token_kl_cross_entropy", TokenKLCrossEntropy),
    ):
        part.add_args(parser.add_argument_group(title))
    return parser.format_help()


def _prepare(args: argparse.Namespace) -> None:
    from fairseq_vat.recipes.prepare import prepare

    texts, output, settings = tokenization(args)
    data = prepare(
        *(texts, output),
        workers=args.workers,
        tell=partial(print, flush=True),
        warn=partial(print, file=sys.stderr),
        **settings,
    )
    words = ["vat_small", str(data), f"{output}/vat"]
    if settings["gpt2"] is not None:
        words = ["vae_gpt2_ptb", str(data), f"{output}/vae", "--gpt2-dir", str(settings["gpt2"])]
    print(f"next: {shlex.join(['fairseq-vat', 'train', *words])}")


def _train(args: argparse.Namespace) -> int:
    from fairseq_vat.recipes.train import (
        Processes,
        run_command,
        training_command,
        unfinished_annealing,
    )

    device = "gpu" if args.gpus else "cpu" if args.cpus else None
    count = args.gpus or args.cpus or 1
    processes = Processes(device, count, args.nodes, args.node_rank, args.master)
    command = training_command(args.data, args.save_dir, args.preset, processes, args.further_flags)
    print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
    if args.dry_run:
        return 0
    status = run_command(command, args.save_dir, processes)
    if status == 0:
        if line := unfinished_annealing(command, args.save_dir):
            print(f"fairseq-vat: warning: {line}", file=sys.stderr)
        print(f"next: fairseq-vat reconstruct {shlex.quote(args.save_dir)} --input FILE")
    return status


def _pack(args: argparse.Namespace) -> None:
    with quiet():
        from fairseq_vat.hub.packing import pack

        path = pack(args.checkpoint, args.output, half=not args.single)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
