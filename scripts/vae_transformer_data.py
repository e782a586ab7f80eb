"""Data sets of scripts/reproduce_vae_transformer.py, and what is trained on of them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from vae_transformer_commands import StepFailed, locked, run_command, say

from fairseq_vat.errors import VATError
from fairseq_vat.files import read_json, sha256, write_json
from fairseq_vat.text.columns import read_labelled
from fairseq_vat.text.lines import read_lines
from fairseq_vat.text.subword_files import SubwordFiles

SPLITS = ("train", "valid", "test")


class DataSet:
    """A folder of ``SPLIT.txt``, or ``SPLIT.tsv`` of ``label<TAB>sentence``, or both.

    Args:
        name: of the data set.
        folder: valid's file of labels may be called dev.tsv.

    Raises:
        VATError: a file is missing.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self._plain = (folder / "train.txt").exists()
        if not self._plain and not (folder / "train.tsv").exists():
            raise VATError(f"{name}={folder}: {folder} has neither train.txt nor train.tsv")
        for split in SPLITS:
            path = self.path(split)
            if not path.is_file():
                raise VATError(f"{name}={folder}: {folder} has no {path.name}")
        self._count: int | None = None
        self.has_labels = all(self.labels(split).is_file() for split in SPLITS)

    def path(self, split: str) -> Path:
        """The file of the sentences."""
        return self.folder / f"{split}.txt" if self._plain else self.labels(split)

    def labels(self, split: str) -> Path:
        """The file of ``label<TAB>sentence``."""
        path = self.folder / f"{split}.tsv"
        return self.folder / "dev.tsv" if split == "valid" and not path.exists() else path

    def sentences(self, split: str) -> list[str]:
        """Cleaned, without empty ones."""
        if self._plain:
            return list(read_lines(self.path(split)))
        rows = read_labelled(self.labels(split))
        return [row.sentences[0] for row in rows if row.sentences[0]]

    @property
    def training_sentences(self) -> int:
        """How many there are."""
        if self._count is None:
            self._count = len(self.sentences("train"))
        return self._count

    def prepare(
        self, out: Path, vocabulary: str | None, drop_unused: bool, gpt2: Path | None
    ) -> None:
        """OUT/data-bin, and OUT/gpt2/data-bin in GPT-2's own vocabulary; nothing if they are there.

        Args:
            out: a folder, kept to this process meanwhile.
            vocabulary: words, wordpiece, a number of sentencepiece pieces or a WordPiece file; None
                takes words for text with ``<unk>`` in it, and else 30522.
            drop_unused: of the WordPiece file, what the texts don't use.
            gpt2: a GPT-2's directory; None makes no such data.

        Raises:
            StepFailed: a command failed, or the folder was made of something else.
        """
        with locked(out):
            text = out / "text"
            note = text / "prepared.json"
            digests = {split: sha256(self.path(split)) for split in SPLITS}
            if (there := read_json(note)) is None:
                text.mkdir(exist_ok=True)
                for split in SPLITS:
                    lines = self.sentences(split)
                    content = "".join(f"{line}\n" for line in lines)
                    (text / f"{split}.txt").write_text(content, encoding="utf-8")
                    if split == "train" and vocabulary is None:
                        has_unk = any("<unk>" in line.split() for line in lines)
                        vocabulary = "words" if has_unk else "30522"
                say(f"{self.name}: preparing, vocabulary: {vocabulary}")
                _binarise(text, out, str(vocabulary), drop_unused)
                made_from = {"vocabulary": vocabulary, "pieces": _pieces(vocabulary)}
                made_from |= {"drop_unused": drop_unused, "sha256": digests}
                write_json(note, made_from)
            elif (
                digests != there["sha256"]
                or _pieces(vocabulary) not in (None, there.get("pieces", there["vocabulary"]))
                or (vocabulary is not None and drop_unused != there.get("drop_unused", False))
            ):
                dropped = " --drop-unused" if there.get("drop_unused") else ""
                raise StepFailed(
                    f"{out} was made of other texts, or with --vocabulary {there['vocabulary']}"
                    f"{dropped}; use another OUT"
                )
            if gpt2 is not None and not (out / "gpt2" / "data-bin").is_dir():
                command = _prepare_command(text, out / "gpt2")
                run_command([*command, "--gpt2", str(gpt2)], out / "gpt2" / "prepare.log")


def _pieces(vocabulary: str | None) -> str | None:
    """What is compared: a file's content, wherever it is."""
    is_file = vocabulary is not None and Path(vocabulary).is_file()
    return sha256(Path(vocabulary)) if is_file else vocabulary


def _prepare_command(text: Path, out: Path) -> list[str]:
    texts = [word for split in SPLITS for word in (f"--{split}", str(text / f"{split}.txt"))]
    return ["fairseq-vat", "prepare", *texts, "--out", str(out)]


def _binarise(text: Path, out: Path, vocabulary: str, drop_unused: bool) -> None:
    log = out / "prepare.log"
    if vocabulary == "words":
        partial = out / "words.partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = ["fairseq-preprocess", "--only-source", "--destdir", str(partial)]
        for split in SPLITS:
            command += [f"--{split}pref", str(text / f"{split}.txt")]
        run_command(command, log)
        SubwordFiles("words").write(partial)
        shutil.rmtree(out / "data-bin", ignore_errors=True)
        os.replace(partial, out / "data-bin")
        return
    command = _prepare_command(text, out)
    if not vocabulary.isdecimal():
        trained = vocabulary == "wordpiece"
        flags = ["--train-wordpiece", "30522"] if trained else ["--wordpiece", vocabulary]
        run_command([*command, *flags, *(["--drop-unused"] if drop_unused else [])], log)
        return
    try:
        run_command([*command, "--vocab-size", vocabulary], log)
    except StepFailed as error:
        # it says how many there can be
        largest = re.search(r"the largest that works is (\d+)", str(error))
        if largest is None:
            raise
        size = int(largest[1]) // 8 * 8
        say(f"{out}: its text has no {vocabulary} pieces; making {size}")
        run_command([*command, "--vocab-size", str(size)], log)
