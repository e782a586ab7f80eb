"""Values of fairseq's flags that can't be meant: one line, before anything is read or written."""

import errno
import re
import sys
from unittest import mock

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from helpers import commands
from helpers.checkpoints import refused

from fairseq_vat.errors import VATError, explain
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.tasks.flag_checks import check_flags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0"], "--lr 0.0: must be numbers above 0"),
        (["--lr", "-1"], "--lr -1.0: must be numbers above 0"),
        (["--lr", ""], "--lr '': must be numbers above 0"),
        (["--update-freq", "0"], "--update-freq 0: must be whole numbers, at least 1"),
        (["--max-tokens", "0"], "--max-tokens 0: must be at least 1"),
        (["--batch-size", "-1"], "--batch-size -1: must be at least 1"),
        (["--num-workers", "-1"], "--num-workers -1: must be at least 0"),
        (["--required-batch-size-multiple", "0"], "--required-batch-size-multiple 0: must be at"),
        (["--max-update", "-1"], "--max-update -1: must be at least 0"),
        (["--clip-norm", "nan"], "--clip-norm nan: must be at least 0"),
        (["--log-interval", "0"], "--log-interval 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
        (["--seed", "4294967296"], "--seed 4294967296: must be below 2^32"),
        (["--adam-betas", "abc"], "--adam-betas abc: must be two numbers"),
        (["--adam-betas", "(0.9, 1.5)"], "must be two numbers of [0, 1)"),
        (["--weight-decay", "-1"], "--weight-decay -1.0: must be at least 0"),
        (["--latent-sampling"], "--latent-sampling is of generation"),
        (["--criterion", "cross_entropy"], "--criterion cross_entropy leaves the KL out"),
        (["--fp16"], "--fp16 needs a CUDA device"),
        (["--bf16"], "--bf16 and --tpu need a TPU"),
        (["--lr-scheduler", "cosine", "--max-update", "0"], "--lr-period-updates is needed"),
        (["--amp", "--checkpoint-activations"], "--checkpoint-activations with --amp"),
        (["--decoder-layers-to-keep", "0"], "--decoder-layers-to-keep 0: prunes a trained model"),
        (
            ["--precision", "bfloat16", "--fp16", "--memory-efficient-fp16"],
            "can't be combined with --fp16",
        ),
        (
            ["--kl-annealing", "cyclic", "--kl-annealing-updates", "4"],
            "--kl-annealing-cycles 5: must be at most --kl-annealing-updates, 4",
        ),
    ],
)
def test_training(flags, message, data_dir, tmp_path):
    assert message in refused(commands.train, data_dir, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def results(data_dir, checkpoint, tmp_path_factory):
    """Of `fairseq-generate`."""
    folder = tmp_path_factory.mktemp("results")
    commands.generate(data_dir, checkpoint, "--results-path", folder)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam", "0"], "--beam 0: must be at least 1"),
        (["--max-len-b", "0"], "--max-len-b 0: must be at least 1"),
        (["--nbest", "3"], "--nbest 3: must be at most --beam, 2"),
        (["--min-len", "31"], "--min-len 31: must be at most --max-len-b, 30"),
        (["--model-overrides", "{'a'"], "--model-overrides must be a dictionary"),
        (["--model-overrides", "{'nothing': 3}"], "--model-overrides nothing: a model of this"),
        (["--model-overrides", "{'dropout': 'x'}"], "--model-overrides dropout: 'x' is of another"),
        (["--min-len", "-1"], "--min-len -1: must be at least 0"),
        (["--sampling-topp", "1.5"], "--sampling-topp 1.5: must be above 0 and at most 1"),
        (["--lenpen", "nan"], "--lenpen nan: must be a finite number"),
        (["--shard-id", "1"], "--shard-id 1: must be below --num-shards, 1"),
        (["--temperature", "0"], "--temperature 0.0: must be above 0"),
        (["--max-tokens", "0"], "--max-tokens 0: must be at least 1"),
    ],
)
def test_generation(flags, message, data_dir, checkpoint, results):
    """What earlier results there are stay."""
    before = {path: path.read_bytes() for path in results.iterdir()}
    assert before
    call = (commands.generate, data_dir, checkpoint, "--results-path", results, *flags)
    assert message in refused(*call)
    assert {path: path.read_bytes() for path in results.iterdir()} == before
    if "--max-tokens" not in flags:
        assert message in refused(commands.interactive, data_dir, checkpoint, b"w1\n", *flags)


def test_results_into_a_file(data_dir, checkpoint, tmp_path):
    (tmp_path / "file").write_text("mine")
    call = (commands.generate, data_dir, checkpoint, "--results-path", tmp_path / "file")
    assert "--results-path" in refused(*call)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def parser():
    return options.get_training_parser()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "abc"], "--lr 'abc': must be numbers, separated by commas"),
        (["--lr", "nan"], "--lr 'nan': must be numbers, separated by commas"),
        (["--update-freq", "x"], "--update-freq 'x': must be numbers, separated by commas"),
        (["--max-tokens", "1.5"], "--max-tokens '1.5': must be a whole number"),
        (["--clip-norm", "x"], "--clip-norm 'x': must be a number"),
        (["--optimizer", "none"], "argument --optimizer: invalid choice: 'none'"),
        (["--nothing", "1"], "unrecognized arguments: --nothing 1"),
    ],
)
def test_what_argparse_can_t_read(flags, message, parser, capsys):
    """Without fairseq's two hundred flags around it."""
    with pytest.raises(SystemExit) as left:
        options.parse_args_and_arch(parser, ["data", *commands.TRAIN_FLAGS, *flags])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("parser_of", "flags", "message"),
    [
        ("training", ["--arch", "vat_transformer"], "--arch vat_transformer needs --task variat"),
        ("training", ["--task", "variational_lm"], "--arch is needed and was not given"),
        ("generation", [], "--task translation: --user-dir fairseq_vat needs --task variatio"),
        ("interactive_generation", [], "--user-dir fairseq_vat needs --task variational_lm"),
        ("validation", [], "--task (none): --user-dir fairseq_vat needs --task variational_lm"),
    ],
)
def test_names_that_are_forgotten(parser_of, flags, message):
    parser = getattr(options, f"get_{parser_of}_parser")()
    user_dir = commands.PLUGIN_FLAGS[:2]
    assert message in refused(options.parse_args_and_arch, parser, ["data", *user_dir, *flags])


def test_an_optimizer_that_is_forgotten(parser):
    flags = ["data", *commands.PLUGIN_FLAGS, "--arch", "vat_transformer", "--max-tokens", "9"]
    flags += ["--criterion", "token_kl_cross_entropy"]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    assert "--optimizer is needed" in refused(check_flags, cfg, "train")


def test_a_loss_that_is_no_number(data_dir, tmp_path):
    """One line; what was saved before stays whole."""
    flags = ["--save-interval-updates", "2", "--disable-validation", "--max-update", "4"]
    commands.train(data_dir, tmp_path, *flags)
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    flags = ["--disable-validation", "--max-update", "9", "--lr", "1e30", "--reset-optimizer"]
    line = refused(commands.train, data_dir, tmp_path, *flags, "--reset-lr-scheduler")
    assert re.search(r"aren't finite at update \d \(learning rate 1e\+30, KL weight 1\): ", line)
    assert line.endswith("checkpoint_last.pt is from before")
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before
    assert not (tmp_path / "crash.pt").exists()


@pytest.mark.parametrize("error", [VATError("mine"), ValueError("a defect")])
def test_a_mistake_that_a_forward_pass_sees(error, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(VATModel, "forward", mock.Mock(side_effect=error))
    with pytest.raises(type(error), match=str(error)):
        commands.train(data_dir, tmp_path, "--disable-validation", "--max-update", "1")
    assert (tmp_path / "crash.pt").exists() != isinstance(error, VATError)


def test_language_models_need_no_kl(data_dir, tmp_path):
    flags = ["--arch", "transformer_decoder_lm", "--criterion", "cross_entropy"]
    try:
        commands.train(data_dir, tmp_path, *flags, "--max-update", "1")
    except VATError as error:
        pytest.fail(str(error))


def test_flags_that_do_nothing_are_warned_of(data_dir, tmp_path):
    flags = ["--free-bits-per", "dimension", "--emulate-bfloat16", "--max-update", "1"]
    log = commands.train(data_dir, tmp_path, *flags)
    assert "--free-bits-per does nothing without --free-bits" in log
    assert "--emulate-bfloat16 does nothing without --precision bfloat16" in log


def test_an_annealing_that_does_nothing_is_warned_of(data_dir, tmp_path):
    log = commands.train(data_dir, tmp_path, "--kl-annealing-updates", "9", "--max-update", "1")
    assert "--kl-annealing-updates 9 does nothing with --kl-annealing constant" in log
    flags = "--kl-annealing linear --kl-annealing-updates 9 --kl-annealing-cycles 3 --max-update 1"
    log = commands.train(data_dir, tmp_path / "linear", *flags.split())
    assert "--kl-annealing-cycles 3 does nothing with --kl-annealing linear" in log
    assert "--kl-annealing-ratio" not in log


def test_no_check_is_made_twice():
    from fairseq.distributed import utils

    from fairseq_vat import plugin

    before = utils.call_main, sys.modules["fairseq_cli.generate"].main
    plugin.install()
    assert (utils.call_main, sys.modules["fairseq_cli.generate"].main) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/none"), "/none: No such file"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError(), "out of memory: lower --max-tokens or --batch-size"),
        (RuntimeError("CUDA out of memory. Tried to"), "out of memory: lower --max-tokens or"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory: lower"),
        (RuntimeError("a defect"), None),
        (OSError(errno.EINVAL, "Invalid argument"), None),
        (KeyError("a defect"), None),
    ],
)
def test_what_the_machine_lacks(error, message):
    """A defect keeps its traceback."""
    line = explain(error, None)
    assert line is None if message is None else line.startswith(message)


def test_memory_that_the_python_interface_lacks(vat, monkeypatch):
    monkeypatch.setattr(vat, "batches", mock.Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError) as caught:
        vat.encode(["w1"])
    line = explain(caught.value, caught.tb)
    assert line == "out of memory: lower --beam, or give fewer or shorter sentences at a time"


@pytest.mark.parametrize("lines", ["2 3\nw1 1 2 3\n", "1 32\nw1 a b\n"])
def test_word_vectors_that_are_none(lines, data_dir, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(lines)
    line = refused(commands.train, data_dir, tmp_path / "run", "--encoder-embed-path", path)
    assert line.startswith(f"{path} has no word vectors of the model's width")


def test_a_batch_too_small_for_every_sentence(data_dir, tmp_path):
    line = refused(commands.train, data_dir, tmp_path, "--max-tokens", "2")
    assert line.startswith("400 of 400 sentences are longer than ") and "--max-tokens" in line


def test_a_full_disk_leaves_nothing_of_a_checkpoint(tmp_path, monkeypatch):
    def full(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    path = tmp_path / "checkpoint_last.pt"
    path.write_bytes(b"whole")
    line = refused(checkpoint_utils.torch_persistent_save, {}, str(path))
    assert line == f"checkpoint {path} can't be written: No space left on device"
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["generate", "interactive"])
def test_a_closed_standard_output(command, monkeypatch):
    parser = options.get_generation_parser(interactive=True)
    flags = ["data", *commands.PLUGIN_FLAGS, "--path", "checkpoint.pt", "--max-tokens", "9"]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    check_flags(cfg, command)
    monkeypatch.setattr(sys, "stdout", None)
    assert refused(check_flags, cfg, command).startswith("standard output is closed")
