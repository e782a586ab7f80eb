"""What every input has in its folder: small data, a tiny model, and what the commands made of it.

train.txt valid.txt test.txt sentences.txt      a sentence a line
train.tsv valid.tsv test.tsv                    label, sentence
sts.tsv                                         score, sentence, sentence
marked.txt three.tsv                            for vary; for arithmetic
data/                                           binarised
other/                                          of another text, with a dictionary of this size
corpus/                                         of fairseq-vat prepare, with sentencepiece
run/checkpoint_last.pt run/train.log            a training, and model.pt, a copy of its end
latents.npz mean/ samples/                      of encode and of fairseq-generate
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from campaign import commands

_PREPROCESS = "fairseq-preprocess --only-source --trainpref {0}train.txt --validpref {0}valid.txt"
_COMMANDS = (
    _PREPROCESS.format("") + " --testpref test.txt --destdir data",
    _PREPROCESS.format("other-") + " --destdir other",
    "vat prepare --train train.txt --valid valid.txt --test test.txt --output corpus --workers 1",
    "train data --save-dir run --max-update 60 --log-file run/train.log",
    "vat encode run/checkpoint_last.pt --cpu --input sentences.txt --output latents.npz",
    "generate data --path run/checkpoint_last.pt --results-path mean",
    "generate data --path run/checkpoint_last.pt --results-path samples --latent-sampling "
    "--latent-samples 2",
)


def make(folder: Path) -> Path:
    """The folder, made anew.

    Raises:
        RuntimeError: a command failed, of which nothing is wrong.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "run").mkdir()
    _write_texts(folder)
    for command in _COMMANDS:
        ended = commands.run(command.split(), folder)
        if ended.status:
            raise RuntimeError(f"{command}: {ended.stderr or ended.stdout}")
    shutil.copy(folder / "run" / "checkpoint_last.pt", folder / "model.pt")
    return folder


def _write_texts(folder: Path) -> None:
    rng = random.Random(1)

    def sentences(count: int, letter: str = "w") -> list[str]:
        words = [f"{letter}{i}" for i in range(40)]
        return [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(count)]

    def write(name: str, lines: list[str]) -> None:
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    for split, count in {"train": 200, "valid": 30, "test": 12}.items():
        write(f"{split}.txt", sentences(count))
        write(f"other-{split}.txt", sentences(count, "v"))
        lines = enumerate(sentences(max(count // 4, 8)))
        write(f"{split}.tsv", [f"{'ab'[number % 2]}\t{line}" for number, line in lines])
    write("sentences.txt", sentences(4))
    pairs = zip(sentences(8), sentences(8), strict=True)
    write("sts.tsv", [f"{number % 6}\t{one}\t{two}" for number, (one, two) in enumerate(pairs)])
    write("two.tsv", ["w1 w2\tw3", "w4\tw5 w6"])
    write("three.tsv", ["w1 w2\tw3\tw4", "w5\tw6\tw7"])
    write("marked.txt", ["w1 [w2] w3", "[w4] w5"])
