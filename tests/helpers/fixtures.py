"""Small data and a small model, made once a session."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hydra.core.config_store import ConfigStore

from helpers import commands, composition, scripts
from helpers.models import build
from helpers.oracle import Oracle
from helpers.processes import preprocess_in_a_fork
from helpers.systems import TINY
from helpers.text import sentences


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 300)


@pytest.fixture(scope="session", autouse=True)
def _composed_once():
    """Most of the time that a small command takes is Hydra's."""
    with (
        mock.patch.multiple(
            "fairseq.dataclass.utils",
            compose=composition.compose,
            initialize=composition.initialize,
        ),
        # Hydra copies all of it for a composition, and then each node that it takes from there
        mock.patch.object(ConfigStore, "__deepcopy__", lambda store, memo: store, create=True),
    ):
        yield


@pytest.fixture(scope="session", autouse=True)
def _started_soon():
    """Processes that tests start import less; `fairseq-preprocess` of `prepare` is a fork."""
    module = importlib.import_module("fairseq_vat.recipes.prepare")
    with (
        mock.patch.dict(os.environ, PYTHONPATH=scripts.ENVIRONMENT["PYTHONPATH"]),
        mock.patch.object(module, "subprocess", SimpleNamespace(run=preprocess_in_a_fork)),
    ):
        yield


@pytest.fixture(scope="session", autouse=True)
def _seeded_soon():
    """Without a device torch keeps a traceback for it, each time that a seed is set."""
    with contextlib.ExitStack() as stack:
        for name in ("cuda", "mtia", "xpu"):
            device = getattr(torch, name, None)
            if device is not None and not device.is_available():
                stack.enter_context(mock.patch.object(device, "manual_seed_all", lambda seed: None))
        yield


@pytest.fixture(scope="session")
def text_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy text: train, valid and test, a sentence a line."""
    folder = tmp_path_factory.mktemp("text")
    for seed, (split, count) in enumerate({"train": 400, "valid": 40, "test": 20}.items()):
        text = "\n".join(sentences(count, seed)) + "\n"
        (folder / split).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def data_dir(text_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy text, binarised."""
    folder = tmp_path_factory.mktemp("data") / "bin"
    splits = {split: text_dir / split for split in ("train", "valid", "test")}
    return commands.preprocess(folder, **splits)


@pytest.fixture(scope="session")
def checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VAT that has begun to learn to copy."""
    folder = tmp_path_factory.mktemp("checkpoint")
    commands.train(
        *(data_dir, folder, "--max-update", "150", "--kl-weight", "0.01", "--dropout", "0")
    )
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def make_system(data_dir: Path) -> Any:
    """Builds a tiny system, once for the same flags: task, model, criterion."""

    @functools.cache
    def cached(flags: tuple[str, ...]) -> tuple[Any, Any, Any]:
        return build(data_dir, *flags[:2], *TINY, *flags[2:])

    def made(flags: list[str], training: bool = False) -> tuple[Any, Any, Any]:
        task, model, criterion = cached(tuple(flags))
        model.zero_grad()
        model.set_num_updates(0)
        return task, model.train(training), criterion

    return made


@pytest.fixture(scope="session")
def trained_oracle(
    data_dir: Path, text_dir: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Trains an oracle's model, once for each kind."""

    @functools.cache
    def trained(kind: str) -> Oracle:
        level, _, noise = kind.partition(", ")
        path = checkpoint
        if kind != "token":  # which is that
            folder = tmp_path_factory.mktemp("oracle")
            flags = ["--latent-level", level, "--max-update", "40", "--kl-weight", "0.01"]
            flags += ["--latent-noise", "prior"] if noise else []
            commands.train(data_dir, folder, *flags, "--dropout", "0")  # s is 0.4 by default
            path = folder / "checkpoint_last.pt"
        return Oracle(level, 0.4 if noise else 1.0, data_dir, path, text_dir / "test")

    return trained


@pytest.fixture(scope="session", params=["token", "sentence", "token, prior's noise"])
def oracle(request: pytest.FixtureRequest, trained_oracle: Any) -> Oracle:
    """A small trained model of each kind, to be measured by hand on the test set's lines."""
    return trained_oracle(request.param)


@pytest.fixture(scope="session")
def built_model(data_dir: Path):
    """A task and an untrained tiny model."""
    task, model, _ = build(data_dir, "--dropout", "0")
    return task, model.eval()


@pytest.fixture(scope="module")
def vat(data_dir: Path, checkpoint: Path):
    """The tiny VAT's hub interface; of the module's own, since a test may move it."""
    from fairseq_vat.models.vat_transformer import VATModel

    return VATModel.from_pretrained(
        checkpoint.parent, data_name_or_path=str(data_dir), device="cpu"
    )


@pytest.fixture(scope="module")
def sentence_level(data_dir: Path):
    """A hub interface of an untrained model with one latent a sentence."""
    from fairseq_vat.hub.interface import VATHubInterface

    flags = ("--arch", "vae_transformer", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16")
    task, model, _ = build(data_dir, *flags)
    return VATHubInterface(None, task, model)


@pytest.fixture(scope="module")
def good(checkpoint):
    """The content of a checkpoint of this plugin."""
    return torch.load(checkpoint, weights_only=True)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it ran"


@pytest.fixture
def subcommand(data_dir: Path, checkpoint: Path, capsys: pytest.CaptureFixture):
    """A subcommand on the tiny VAT: its output, parsed with --json; its one line if it fails."""
    from fairseq_vat.cli.main import main

    def make(name: str, *always: str):
        def run(*flags: object, path: object = checkpoint, data: object = data_dir):
            capsys.readouterr()
            every = [*always, *map(str, flags)]
            try:
                status = main([name, str(data), "--path", str(path), *every])
            except SystemExit as left:  # a wrong flag
                status = left.code
            captured = capsys.readouterr()
            if status:
                assert not captured.out
                assert captured.err.count("\n") == 1
                return captured.err.removeprefix("fairseq-vat: error: ").strip()
            run.warnings = captured.err
            return json.loads(captured.out) if "--json" in every else captured.out

        return run

    return make
