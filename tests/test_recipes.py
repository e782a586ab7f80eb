"""`fairseq-vat prepare` and `train`: fairseq's own commands, with a recipe's flags."""

import importlib
import json
import os
import random
import re
import socket
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import train as fairseq_train
from helpers import commands
from helpers.configs import composed
from helpers.processes import Forked, locked_by_another
from omegaconf import OmegaConf

from fairseq_vat.cli.main import main
from fairseq_vat.errors import VATError
from fairseq_vat.files import read_json
from fairseq_vat.recipes import launcher
from fairseq_vat.recipes.prepare import prepare
from fairseq_vat.recipes.train import (
    Processes,
    preset_flags,
    preset_names,
    run_command,
    training_command,
    training_environment,
    unfinished_annealing,
)
from fairseq_vat.text.subword_files import SubwordFiles
from fairseq_vat.text.tokenization import fitting_vocab_size, tokenize

# what the machine and the place decide, and Hydra's own way to write the same
APART = {"save_dir", "log_format", "fp16", "user_dir", "data", "no_save"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 6))) for _ in range(300)]
    files = {}
    for split, count in {"train": 500, "valid": 30, "test": 30}.items():
        files[split] = folder / f"{split}.txt"
        lines = [" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(count)]
        files[split].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


@pytest.fixture(scope="module")
def prepared(texts, tmp_path_factory):
    return prepare(texts, tmp_path_factory.mktemp("prepared"), workers=1)


def test_data_say_how_text_becomes_tokens(prepared):
    model = (prepared.parent / "sentencepiece.model").read_bytes()
    assert SubwordFiles.read(prepared) == SubwordFiles(
        "sentencepiece", {"sentencepiece_model": model}
    )
    assert read_json(prepared / "made_from.json") == read_json(prepared.parent / "tokenize.json")


def test_what_is_there_is_not_made_again(texts, prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
    told = []
    assert prepare(texts, prepared.parent, tell=told.append) == prepared
    assert told[-1] == f"{prepared}: up to date, nothing to do"
    assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


def test_a_missing_file_is_made_again(texts, prepared):
    whole = {path.name: path.read_bytes() for path in prepared.iterdir()}
    for name in ("train.bin", "sentencepiece.model"):
        (prepared / name).unlink()
        prepare(texts, prepared.parent, workers=1)
        assert {path.name: path.read_bytes() for path in prepared.iterdir()} == whole


def test_no_module_of_the_folder_is_run(tmp_path, monkeypatch):
    run = Mock(return_value=SimpleNamespace(returncode=1, stderr="x"))
    module = importlib.import_module("fairseq_vat.recipes.prepare")
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
    for split in ("train", "valid", "test"):
        (tmp_path / split).write_text("a b c\n" * 9)
    with pytest.raises(VATError, match="fairseq-preprocess wrote no train data: x"):
        prepare({s: tmp_path / s for s in ("train", "valid", "test")}, tmp_path / "out")
    assert run.call_args.kwargs["env"]["PYTHONSAFEPATH"] == "1"


def test_an_interrupted_one_goes_on(texts, prepared):
    (prepared / "made_from.json").unlink()
    (prepared.parent / "data-bin.partial").mkdir()
    prepare(texts, prepared.parent, workers=1)
    assert (prepared / "made_from.json").exists()
    assert not (prepared.parent / "data-bin.partial").exists()


def test_the_vocabulary_fits_the_text(texts, tmp_path, prepared):
    """Of 300 words sentencepiece can't make the 512 entries that the text's length asks for."""
    assert fitting_vocab_size(texts["train"]) == 256
    text = tmp_path / "text"
    text.write_text("a b c d e f g h\n" * 20_000)
    assert fitting_vocab_size(text) == 2048
    small, out = {**texts, "train": text}, tmp_path / "out"
    tokenize(small, out)
    assert len((out / "dict.txt").read_text().splitlines()) + 4 < 2048
    with pytest.raises(VATError, match="--vocab-size 2048 is too large"):
        tokenize(small, tmp_path / "2", vocab_size=2048)


def test_a_vocabulary_fits_the_characters(texts, tmp_path):
    """Without spaces there are few words, and of Chinese more characters than subwords for them."""
    rng = random.Random(1)
    characters = [chr(0x4E00 + i) for i in range(400)]
    text = tmp_path / "text"
    lines = ("".join(rng.choices(characters, k=12)) for _ in range(300))
    text.write_text("\n".join(lines), encoding="utf-8")
    assert fitting_vocab_size(text) == 256
    told = []
    tokenize({**texts, "train": text}, tmp_path / "out", tell=told.append)
    assert any("the text's characters take 40" in line for line in told)
    assert not any("unknown" in line and "0.000%" not in line for line in told if "train:" in line)
    with pytest.raises(VATError, match="--vocab-size 256 is too small"):
        tokenize({**texts, "train": text}, tmp_path / "2", vocab_size=256)


def test_a_pipe_is_refused(texts, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VATError, match=r"--valid .*pipe: is a pipe; give a file"):
        tokenize({**texts, "valid": tmp_path / "pipe"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lines_that_are_all_too_long_are_told(texts, tmp_path):
    text = tmp_path / "text"
    text.write_text("one line\r" * 9000)
    with pytest.raises(VATError, match=r"no line with text of up to 65,536 bytes .* end with \\n"):
        tokenize({**texts, "train": text}, tmp_path / "out")


def test_a_folder_in_use_is_left_alone(texts, tmp_path):
    with (
        locked_by_another(tmp_path),
        pytest.raises(VATError, match="another run is at work there"),
    ):
        prepare(texts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_data_of_another_text_are_not_replaced_in_silence(texts, tmp_path):
    told = []
    prepare({**texts, "test": texts["valid"]}, tmp_path / "out", warn=told.append)
    assert told == []
    prepare(texts, tmp_path / "out", warn=told.append)
    assert told == [
        f"{tmp_path / 'out/data-bin'}: was made of other texts or settings, and is made anew"
    ]


def test_a_text_that_cannot_be_read_leaves_no_folder(texts, tmp_path):
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError, match=str(wrong)):
            prepare({**texts, "valid": wrong}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_training_that_ends_within_its_annealing_is_told(tmp_path):
    record = {"update": 96, "epoch": 3, "subset": "train", "kind": "train", "kl_nats": 7.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    command = ["--kl-annealing-updates", "4000", "--lr", "1"]
    line = unfinished_annealing(command, str(tmp_path))
    assert line.startswith("the training ended after 96 updates, within the annealing of its KL, ")
    assert "takes 4,000" in line and "--max-epoch 125, or --max-update 4000 where" in line
    for later in ("--kl-annealing-updates=96", "--kl-annealing-updates=0"):
        assert unfinished_annealing([*command, later], str(tmp_path)) is None
    assert unfinished_annealing(["--lr", "1"], str(tmp_path)) is None
    assert unfinished_annealing([*command, "--kl-annealing", "constant"], str(tmp_path)) is None
    assert unfinished_annealing(command, str(tmp_path / "none")) is None


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_its_hydra_file(name, prepared):
    parser = options.get_training_parser()
    flags = [str(prepared), "--user-dir", commands.PLUGIN, *preset_flags(name)]
    by_flags = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    by_hydra = composed(name, f"task.data={prepared}")
    for group, values in by_hydra.items():
        if not isinstance(values, dict) and not OmegaConf.is_config(values):
            continue
        one, other = (
            OmegaConf.to_container(cfg[group], resolve=True, enum_to_str=True)
            for cfg in (by_flags, by_hydra)
        )
        for key in set(other) & set(one) - APART:
            if (group, key) != ("model", "_name"):  # a preset's name, or its class and settings
                assert str(one[key]) == str(other[key]), f"{group}.{key}"


def test_the_command_is_fairseq_s(prepared, tmp_path):
    command = training_command(str(prepared), str(tmp_path), "demo", flags=["--kl-weight", "0.3"])
    assert command[:3] == [sys.executable, "-m", "fairseq_cli.train"]
    assert command[-2:] == ["--kl-weight", "0.3"]
    assert "--precision" in command or "--fp16" in command or "--cpu" in command
    for flag in ("--fp16", "--precision=float32"):
        given = training_command(str(prepared), str(tmp_path), "demo", flags=[flag])
        assert given[-1] == flag and "--precision" not in given
    # what only tunes a precision chooses none
    tuned = [*command[:-2], "--fp16-init-scale", "4"]
    flags = tuned[-2:]
    assert training_command(str(prepared), str(tmp_path), "demo", flags=flags) == tuned
    two = training_command(str(prepared), str(tmp_path), "demo", Processes("cpu", 2))
    assert two[1:5] == ["-m", "fairseq_vat.recipes.launcher", "--nproc_per_node", "2"]
    assert "--standalone" in two
    many = Processes("cpu", 2, nodes=3, node_rank=1, master="host.org:29500")
    of_three = training_command(str(prepared), str(tmp_path), "demo", many)
    assert of_three[3:13] == [
        *("--nproc_per_node", "2", "--nnodes", "3", "--node_rank", "1"),
        *("--master_addr", "host.org", "--master_port", "29500"),
    ]


@pytest.mark.parametrize(("flags", "processes"), [([], 1), (["--distributed-world-size", "4"], 4)])
def test_it_is_one_process_where_there_are_several_gpus(flags, processes, prepared, monkeypatch):
    """fairseq's own default is a process for each."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    command = training_command(str(prepared), "none", "demo", flags=flags)
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, command[3:])
    cfg = convert_namespace_to_omegaconf(args).distributed_training
    assert cfg.distributed_world_size == processes


@pytest.mark.parametrize(
    ("flags", "without"),
    [
        (["--lr-scheduler", "inverse_sqrt"], {"min_lr", "lr_period_updates", "lr_shrink"}),
        (["--lr-scheduler=fixed"], {"min_lr", "lr_period_updates"}),
        (["--optimizer", "sgd"], {"adam_betas"}),
        (["--optimizer", "adam"], set()),
        (["--lr-scheduler", "cosine", "--optimizer", "fused_adam"], set()),
    ],
)
def test_settings_of_what_another_replaces_are_left_out(flags, without):
    kept = preset_flags("vae_transformer_ptb", flags)
    gone = [word for word in preset_flags("vae_transformer_ptb") if word not in kept]
    assert {word[2:].replace("-", "_") for word in gone if word.startswith("--")} == without
    flags = ["DATA", "--user-dir", commands.PLUGIN, *kept, *flags]
    options.parse_args_and_arch(options.get_training_parser(), flags)  # none is unrecognized


def test_another_task_is_left_to_fairseq():
    assert preset_flags("demo", ["--task", "language_modeling"]) == preset_flags("demo")


def test_an_address_in_use_is_told_in_one_line(capfd):
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
        flags = ["--nproc_per_node", "1", "--nnodes", "2", "--node_rank", "0"]
        flags += ["--master_addr", "localhost", "--master_port", port, "-m", "fairseq_vat.errors"]
        assert launcher.main(flags) == 1
    error = capfd.readouterr().err
    assert re.search(r"^fairseq_vat: error: --master: .*address already in use$", error, re.M)
    assert "Traceback" not in error


def test_a_training_keeps_its_memory(tmp_path, monkeypatch):
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['GLIBC_TUNABLES'])"
    assert training_environment()["PYTHONSAFEPATH"] == "1"
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for given in (None, "glibc.malloc.check=1"):
        if given is not None:
            monkeypatch.setenv("GLIBC_TUNABLES", given)
        run_command([sys.executable, "-c", code, str(tmp_path / "told")], str(tmp_path))
        told = (tmp_path / "told").read_text()
        assert told == given or (given is None and "glibc.malloc.hugetlb=1" in told)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nothing", "DATA", "out"], r"PRESET nothing: must be one of .*demo"),
        (["demo", "PREPARED", "out"], "is a folder of fairseq-vat prepare: give .*/data-bin"),
        (["demo", "missing", "out"], "missing has no dict.txt: make it with fairseq-vat prepare"),
        (["demo", "DATA", "out", "--nodes", "2"], "--nodes needs --gpus or --cpus"),
        (["demo", "DATA", "out", "--gpus", "2"], "--gpus 2: torch sees 1 here|torch sees no GPU"),
        (["demo", "DATA", "out", "--node-rank", "1"], "--node-rank 1: must be from 0 to .* 0"),
        (["demo", "DATA", "out", "--master", "a:1"], "--master a:1 needs --gpus or --cpus"),
        (
            ["demo", "DATA", "out", "--cpus", "1", "--nodes", "2", "--master", "a"],
            "--master a: must be HOST:PORT",
        ),
        (
            ["demo", "DATA", "out", "--cpus", "1", "--nodes", "2", "--master", "a:65536"],
            "--master a:65536: must be HOST:PORT, the port up to 65535",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"DATA": str(prepared), "PREPARED": str(prepared.parent)}
    assert main(["train", *(places.get(flag, flag) for flag in flags)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_presets_and_flags_are_listed(capsys):
    for flag, expected in (("--presets", "vae_transformer_ptb"), ("--flags", "--kl-annealing")):
        with pytest.raises(SystemExit) as caught:
            main(["train", flag])
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out


def test_it_trains_and_goes_on(prepared, tmp_path, monkeypatch):
    """In a process of its own, as a user has it."""
    flags = ["--arch", "vat_transformer_tiny", "--max-tokens", "300", "--num-workers", "0", "--cpu"]
    flags += ["--precision", "float32", "--max-update"]
    begun = training_command(str(prepared), str(tmp_path / "run"), "demo", flags=[*flags, "2"])
    monkeypatch.setattr(sys, "argv", begun[2:])
    (tmp_path / "run").mkdir()
    assert Forked(tmp_path / "output", fairseq_train.cli_main).wait()[0] == 0
    command = [sys.executable, "-m", "fairseq_vat.cli", "train", "demo", str(prepared)]
    command += [str(tmp_path / "run"), *flags, "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("+ ")
    assert "next: fairseq-vat reconstruct" in done.stdout
    assert "ended after 4 updates, within the annealing of its KL" in done.stderr
    assert "Loaded checkpoint" in done.stdout + done.stderr
    state = torch.load(tmp_path / "run/checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 4
    assert (tmp_path / "run/train.log").stat().st_size
