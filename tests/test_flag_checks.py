"""Values of fairseq's flags that can't be meant: one line, before anything is read or written."""

import shutil
import sys

import pytest
from helpers import commands
from helpers.checkpoints import refused

from fairseq_vat.errors import VATError, explain


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0"], "--lr 0.0: must be numbers above 0"),
        (["--lr", "-1"], "--lr -1.0: must be numbers above 0"),
        (["--lr", "nan"], "--lr nan: must be numbers above 0"),
        (["--update-freq", "0"], "--update-freq 0: must be whole numbers, at least 1"),
        (["--max-tokens", "0"], "--max-tokens 0: must be at least 1"),
        (["--batch-size", "-1"], "--batch-size -1: must be at least 1"),
        (["--num-workers", "-1"], "--num-workers -1: must be at least 0"),
        (["--required-batch-size-multiple", "0"], "--required-batch-size-multiple 0: must be at"),
        (["--max-update", "-1"], "--max-update -1: must be at least 0"),
        (["--clip-norm", "nan"], "--clip-norm nan: must be at least 0"),
        (["--log-interval", "0"], "--log-interval 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
        (["--adam-betas", "abc"], "--adam-betas abc: must be two numbers"),
        (["--adam-betas", "(0.9, 1.5)"], "must be two numbers of [0, 1)"),
        (["--latent-sampling"], "--latent-sampling is of generation"),
        (["--criterion", "cross_entropy"], "--criterion cross_entropy leaves the KL out"),
        (["--fp16"], "--fp16 needs a CUDA device"),
    ],
)
def test_training(flags, message, data_dir, tmp_path):
    assert message in refused(commands.train, data_dir, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam", "0"], "--beam 0: must be at least 1"),
        (["--max-len-b", "0"], "--max-len-b 0: must be at least 1"),
        (["--min-len", "-1"], "--min-len -1: must be at least 0"),
        (["--temperature", "0"], "--temperature 0.0: must be above 0"),
        (["--max-tokens", "0"], "--max-tokens 0: must be at least 1"),
    ],
)
def test_generation(flags, message, data_dir, checkpoint, tmp_path):
    """What earlier results there are stay."""
    commands.generate(data_dir, checkpoint, "--results-path", tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    call = (commands.generate, data_dir, checkpoint, "--results-path", tmp_path / "out", *flags)
    assert message in refused(*call)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    if "--max-tokens" not in flags:
        assert message in refused(commands.interactive, data_dir, checkpoint, b"w1\n", *flags)


def test_results_into_a_file(data_dir, checkpoint, tmp_path):
    (tmp_path / "file").write_text("mine")
    call = (commands.generate, data_dir, checkpoint, "--results-path", tmp_path / "file")
    assert "--results-path" in refused(*call)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("flags", [["--lr", ""], ["--lr", "abc"], ["--update-freq", "x"]])
def test_what_argparse_can_t_read(flags, data_dir, tmp_path, capsys):
    with pytest.raises((SystemExit, Exception)) as caught:
        commands.train(data_dir, tmp_path / "run", *flags)
    if isinstance(caught.value, SystemExit):
        line = capsys.readouterr().err.splitlines()[-1]
    else:
        line = explain(caught.value, caught.value.__traceback__)
    assert flags[0] in line


def test_a_loss_that_is_no_number(data_dir, tmp_path):
    """One line; what was saved before stays whole."""
    flags = ["--save-interval-updates", "2", "--disable-validation", "--max-update", "4"]
    commands.train(data_dir, tmp_path, *flags)
    before = shutil.copy(tmp_path / "checkpoint_last.pt", tmp_path / "before")
    line = refused(
        commands.train, data_dir, tmp_path, *flags[:3], "--lr", "1e30", "--reset-optimizer"
    )
    assert "aren't finite at update" in line and "--lr" in line
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before.read_bytes()


def test_language_models_need_no_kl(data_dir, tmp_path):
    flags = ["--arch", "transformer_decoder_lm", "--criterion", "cross_entropy"]
    try:
        commands.train(data_dir, tmp_path, *flags, "--max-update", "1")
    except VATError as error:
        pytest.fail(str(error))


def test_no_check_is_made_twice():
    from fairseq.distributed import utils

    from fairseq_vat import plugin

    before = utils.call_main, sys.modules["fairseq_cli.generate"].main
    plugin.install()
    assert (utils.call_main, sys.modules["fairseq_cli.generate"].main) == before
