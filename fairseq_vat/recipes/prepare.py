"""From raw text to binarised data: clean, train subwords, encode, `fairseq-preprocess`."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairseq_vat.errors import VATError
from fairseq_vat.files import read_json
from fairseq_vat.text.subword_files import SubwordFiles
from fairseq_vat.text.tokenization import SPLITS, tokenize


def prepare(
    texts: Mapping[str, str | os.PathLike],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    tell: Callable[[str], object] = lambda line: None,
    warn: Callable[[str], object] = lambda line: None,
    **tokenization: Any,
) -> Path:
    """The data directory for `fairseq-train`, ``OUT/data-bin``; made once from the same text.

    Beside fairseq's files it holds how text becomes its tokens (`SubwordFiles`), which training
    puts into every checkpoint.

    Args:
        texts: the file of each of `SPLITS`, a sentence a line; plain, ``.gz`` or ``.xz``.
        workers: processes of `fairseq-preprocess`; None takes all cores.
        tell, warn: as for `tokenize`; data of other texts that are replaced are warned of.

    Raises:
        OSError: for a text that can't be read.
        VATError: for texts that `tokenize` refuses, a folder that another run is at work in, and
            where `fairseq-preprocess` failed.
    """
    out = Path(out)
    for path in texts.values():  # before the folder is made
        open(path, "rb").close()
    made_from = tokenize(texts, out, tell=tell, warn=warn, **tokenization)
    data = out / "data-bin"
    if read_json(data / "made_from.json") == made_from and _is_whole(data):
        tell(f"{data}: up to date, nothing to do")
        return data
    if data.is_dir():
        warn(f"{data}: was made of other texts or settings, and is made anew")

    # Made beside its place and moved there whole, so that data-bin is never half a data set.
    partial = out / "data-bin.partial"
    shutil.rmtree(partial, ignore_errors=True)
    count = workers or os.cpu_count() or 1
    tell(f"+ fairseq-preprocess {shlex.join(_flags(out, count))}")
    # in the folder, since commas and braces in its name would mean something to fairseq
    command = [sys.executable, "-m", "fairseq_cli.preprocess", *_flags(Path(), count)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # no module is looked for in the folder
    done = subprocess.run(command, capture_output=True, text=True, cwd=out, env=environment)
    for split in SPLITS:
        # fairseq-preprocess can end with status 0 after a worker died
        if done.returncode or not (partial / f"{split}.idx").is_file():
            last = [line for line in done.stderr.splitlines() if line.strip()] or ["it is silent"]
            raise VATError(f"fairseq-preprocess wrote no {split} data: {last[-1]}")
    kinds = {"gpt2_sha256": "gpt2", "wordpiece_sha256": "bert", "model_sha256": "sentencepiece"}
    (kind,) = (kind for name, kind in kinds.items() if name in made_from["made_from"])
    SubwordFiles.in_folder(kind, out).write(partial)
    shutil.copyfile(out / "tokenize.json", partial / "made_from.json")
    shutil.rmtree(data, ignore_errors=True)
    os.replace(partial, data)
    tell(f"{data}: {made_from['splits']['train']['sentences']:,} sentences to train on")
    return data


def _is_whole(data: Path) -> bool:
    files = ["dict.txt", *(f"{split}.{end}" for split in SPLITS for end in ("bin", "idx"))]
    try:
        return all((data / name).is_file() for name in files) and bool(SubwordFiles.read(data))
    except VATError:  # a file of the subwords is missing
        return False


def _flags(folder: Path, workers: int) -> list[str]:
    flags = ["--only-source", "--srcdict", str(folder / "dict.txt")]
    flags += ["--destdir", str(folder / "data-bin.partial")]
    for split in SPLITS:
        flags += [f"--{split}pref", str(folder / f"{split}.pieces")]
    return [*flags, "--workers", str(workers)]
