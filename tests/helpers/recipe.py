"""The VAE-Transformer's recipe, with commands that only pretend."""

from __future__ import annotations

import json
from pathlib import Path

import reproduce_vae_transformer

from helpers.scripts import Workplace

# what the real commands would leave
PRETEND = """
if name == "fairseq-preprocess":
    folder = Path(value("--destdir"))
    folder.mkdir(parents=True)
    (folder / "dict.txt").write_text("a 1\\nb 1\\n")
    (folder / "train.bin").write_text("a b")
if name == "fairseq-vat" and args[0] == "prepare":
    folder = Path(value("--out")) / "data-bin"
    folder.mkdir(parents=True)
    (folder / "dict.txt").write_text("a 1\\nb 1\\n")
    (folder / "train.bin").write_text("a b")
if name == "fairseq-train":
    last = Path(value("--save-dir")) / "checkpoint_last.pt"
    metric = value("--best-checkpoint-metric")
    if os.environ.get("FAIL", "nothing") in str(last):
        sys.exit("no memory is left")
    with zipfile.ZipFile(last, "w") as file:
        file.writestr("data", "x")
    with open(value("--log-file"), "a") as file:
        file.write("epoch 002 | loss 1 | num_updates 8\\n")
        file.write("epoch 003 | valid on 'valid' subset | " + metric + " 4 | num_updates 9\\n")
if name == "fairseq-vat" and args[0] == "evaluate":
    nll = {"ppl_per_token": 70.5, "ppl_per_word": 81, "per_sentence": 94}
    measured = {"nll": nll | {"ppl_per_token": 70}, "nll_samples": nll, "kl_nats": 6.25}
    print(json.dumps({"checkpoint": value("--path"), "data": args[1], **measured}))
if name == "fairseq-vat" and args[0] == "classify":
    split = {"loss": 0.5, "accuracy": 75.0}
    scores = dict.fromkeys(("train", "valid", "test"), split)
    print(json.dumps(
        {"classifier": scores, "logistic_regression": scores, "majority": scores,
         "seeds": 5, "epochs": 20}
    ))
"""


def recipe(folder: Path) -> Workplace:
    """The script in a folder with toy data sets."""
    for name in ("ptb", "sst2"):
        (folder / name).mkdir()
    for split, count in (("train", 70), ("valid", 3), ("test", 3)):
        lines = [" a <unk> b \n"] * count
        (folder / "ptb" / f"{split}.txt").write_text("".join(["\n", *lines]))
        split = split.replace("valid", "dev")
        (folder / "sst2" / f"{split}.tsv").write_text("1\ta <unk>\n0\tb a\n")
    main = reproduce_vae_transformer.main
    return Workplace(folder, "reproduce_vae_transformer.sh", PRETEND, main)


def flag(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def result(work: Workplace, name: str) -> dict:
    return json.loads((work.folder / "out" / name / "result.json").read_text())
