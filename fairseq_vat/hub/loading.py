"""Checkpoints and subword models, read through fairseq's own loaders, with mistakes named."""

import os
import tempfile
from argparse import Namespace
from dataclasses import dataclass, fields
from typing import Any

import torch
from fairseq import checkpoint_utils, tasks
from fairseq.data import encoders
from fairseq.registry import REGISTRIES
from omegaconf import MISSING, DictConfig, open_dict

from fairseq_vat.errors import VATError, explain
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.pretrained import packaged_models, path_of
from fairseq_vat.tasks.config import VariationalLMConfig
from fairseq_vat.tasks.data_directory import first_data_directory, vocabulary_of
from fairseq_vat.tasks.variational_lm import VariationalLMTask
from fairseq_vat.text import subwords
from fairseq_vat.text.gpt2_vocabulary import check_encoding
from fairseq_vat.text.subword_files import SubwordFiles
from fairseq_vat.text.wordpiece import check_wordpiece

TASK_SETTINGS = frozenset(field.name for field in fields(VariationalLMConfig))
# fairseq keeps all flags of a training in its checkpoints, also those that are for generation only:
# a model that was trained with --latent-sampling would draw where its mean is asked for
_OF_GENERATION = {
    field.name: field.default
    for field in fields(VariationalLMConfig)
    if field.name.startswith("latent_")
}

# what a model's folder is searched for, in this order
_IN_A_FOLDER = ("checkpoint_last.pt", "model.pt")


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint, ready to use.

    Attributes:
        model: in evaluation mode, on its device.
        task: set up as in the training, with the data directory that was asked for.
        cfg: the checkpoint's whole configuration (`cfg.criterion.prior_std` and so on).
        subwords: how text becomes tokens, where the checkpoint or the data directory says it.
    """

    model: VATModel
    task: VariationalLMTask
    cfg: DictConfig
    subwords: SubwordFiles | None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def load_model(
    path: str | os.PathLike,
    data: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    **task_overrides: Any,
) -> LoadedModel:
    """Load a checkpoint of this plugin through fairseq's own loader.

    Args:
        path: the checkpoint, or its folder, as for `checkpoint_of`.
        data: a data directory with the dictionary of the training (several, separated by colons,
            as for fairseq-train); None takes the dictionary that the checkpoint holds, or else the
            folder that it is in.
        device: where the model goes; None takes a CUDA device if there is one, else the CPU.
        **task_overrides: settings of the task that are to differ from the training's, such as
            ``truncate=True``, but for those of generation (``latent_...``), which are at their
            defaults. The model's are left alone.

    Raises:
        VATError: if the checkpoint is missing, cut off, no checkpoint or not one of this plugin,
            or if the data directory isn't one or has another dictionary.
    """
    device = pick_device(device)
    path = checkpoint_of(path)
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(path)
        cfg = state["cfg"]
        vocabulary = vocabulary_of(state.get("task_state", {}))
        if data is None and vocabulary is None:
            data = os.path.dirname(path) or "."
            if not os.path.isfile(os.path.join(data, "dict.txt")):
                raise VATError(
                    f"checkpoint {path} holds no dictionary, being of an earlier version: give the "
                    "data directory of its training"
                )
        subword_files = vocabulary and vocabulary.subwords
        if data is not None and subword_files is None:
            subword_files = SubwordFiles.read(first_data_directory(os.fspath(data)))
        with open_dict(cfg):
            place = "" if data is None else os.fspath(data)
            for name, value in {"data": place, **task_overrides}.items():
                if name not in TASK_SETTINGS:
                    raise TypeError(f"variational_lm has no setting {name!r}")
                if name in _OF_GENERATION:
                    raise TypeError(f"{name}: give it to what generates, such as sample()")
                cfg.task[name] = value
            cfg.task.update(_OF_GENERATION)
        # that of a data directory has to be equal, which fairseq's loader asks the task
        dictionary = vocabulary.dictionary if data is None else None
        task = tasks.setup_task(cfg.task, from_checkpoint=True, dictionary=dictionary)
        task.training_lengths = vocabulary and vocabulary.lengths
        (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task(
            [path], task=task, state=state
        )
    except Exception as error:
        line = explain(error, error.__traceback__)
        if line is None or isinstance(error, VATError):
            raise
        raise VATError(line) from error
    return LoadedModel(model.to(device).eval(), task, cfg, subword_files)


def checkpoint_of(name_or_path: str | os.PathLike) -> str:
    """The path of a checkpoint: of a file itself, of a folder what `_IN_A_FOLDER` finds first.

    A name of `packaged_models` is its folder.
    """
    path = path_of(name_or_path)
    if os.path.isfile(path):
        return path
    if not os.path.isdir(path):
        names = " or ".join(packaged_models())
        raise VATError(
            f"checkpoint {path or repr('')} doesn't exist: give one, or the folder of one"
            + (f", or {names}" if names else "")
        )
    for name in _IN_A_FOLDER:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise VATError(f"checkpoint {path} is a folder without {' or '.join(_IN_A_FOLDER)}")


def prior_of(cfg: DictConfig, model: VATModel, std: float | None = None) -> Prior:
    """The latents' own prior N(0, p^2 I), to measure against and to draw from.

    Args:
        std: p of ``--prior-std``, which never changes the noise; None takes the training's prior:
            `Prior.of_latents`.

    Raises:
        VATError: if `std` isn't above 0, or None and the training had none.
    """
    if std is not None:
        return Prior(std)
    trained = getattr(cfg.criterion, "prior_std", None)
    if trained is None:
        raise VATError("--prior-std is needed: the checkpoint wasn't trained with one")
    return Prior(float(trained)).of_latents(model.encoder.prior_noise)


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; for None a CUDA device if there is one, else the CPU."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise VATError(f"device {device!r}: give cpu, cuda, or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise VATError(f"device {device}: torch sees no CUDA device here; give cpu")
    return device


def bpe_of(files: SubwordFiles | None) -> Any:
    """fairseq's encoder of a checkpoint's subwords; None for words, and where nothing is known."""
    if files is None or files.kind == "words":
        return None
    with tempfile.TemporaryDirectory() as folder:  # they are read at once
        return build_bpe(files.kind, **files.write(folder))


def build_bpe(name: str | None, **settings: Any) -> Any:
    """fairseq's encoder of subwords by its name, or None for None.

    Args:
        name: such as ``sentencepiece`` or ``hf_byte_bpe``.
        **settings: its flags with underscores; those that are None count as not given.

    Raises:
        VATError: for an unknown name, a setting that is missing, and a file that isn't what it
            should be.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    known = REGISTRIES["bpe"]["registry"]
    choices = ", ".join(sorted(known))
    if name is None and not settings:
        return None
    if name is None:
        names = ", ".join(settings)
        raise TypeError(f"{names}: unknown, or a setting of subwords without bpe=NAME")
    if name not in known:
        raise VATError(f"--bpe {name}: must be one of {choices}")
    dataclass_of = REGISTRIES["bpe"]["dataclass_registry"]
    defaults = (
        {f.name: f.default for f in fields(dataclass_of[name])} if name in dataclass_of else {}
    )
    if unknown := set(settings) - set(defaults):
        raise TypeError(f"bpe={name!r} has no setting {', '.join(sorted(unknown))}")
    for key, default in defaults.items():
        # a default that is an address would be downloaded
        if key not in settings and str(default).startswith((MISSING, "http")):
            raise VATError(f"--{key.replace('_', '-')} is needed and was not given")
    settings = {
        key: os.fspath(value) if isinstance(value, os.PathLike) else value
        for key, value in settings.items()
    }
    if name == "sentencepiece":  # fairseq's own errors don't name the file
        model = settings["sentencepiece_model"]
        if not os.path.isfile(model):
            raise VATError(f"--sentencepiece-model: file {model} not found")
        subwords.load_model(model)
    if name == "bert":
        if "bpe_vocab_file" not in settings:  # fairseq would download one
            raise VATError("--bpe-vocab-file is needed and was not given")
        check_wordpiece(settings["bpe_vocab_file"])
    try:
        bpe = encoders.build_bpe(Namespace(bpe=name, **settings))
    except Exception as error:
        line = explain(error, error.__traceback__)
        given = ", ".join(map(str, settings.values()))
        raise VATError(line or f"--bpe {name} with {given or 'no files'}: {error}") from error
    if name == "gpt2":
        check_encoding("--gpt2-encoder-json", bpe.bpe.encoder, bpe.bpe.bpe_ranks)
    return bpe
