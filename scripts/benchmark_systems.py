"""What scripts/benchmark.py takes steps of: systems, batches, and the operations of a step.

Shape legend: B sentences, T source positions, S target positions, C width, V vocabulary.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from torch import nn

PLUGIN = Path(__file__).resolve().parent.parent / "fairseq_vat"
PRECISIONS = ("float32", "bfloat16", "fp16")
# the VAT paper's
_SHAPE = (
    "--encoder-layers 4 --decoder-layers 4 --encoder-embed-dim 128 --decoder-embed-dim 128 "
    "--encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 8 "
    "--decoder-attention-heads 8 --dropout 0.1 --share-all-embeddings"
).split()
_OPTIMIZER = (
    "--optimizer adam --adam-betas (0.9,0.98) --lr 1e-4 --lr-scheduler inverse_sqrt "
    "--warmup-updates 100 --clip-norm 1.0 --batch-size 128 --max-update 1000"
).split()
_VARIATIONAL = (
    "--criterion token_kl_cross_entropy --kl-weight 1 --kl-annealing logistic "
    "--kl-annealing-updates 1000"
).split()
# --tokens target tokens in sentences of 24 to 40, and the dictionaries of --vocabulary
BY_TOKENS = {
    "stock": ["--arch", "transformer", "--criterion", "cross_entropy", *_SHAPE],
    "vat": ["--arch", "vat_transformer", *_VARIATIONAL, *_SHAPE],
}
# the VAE-Transformer paper's: presets with their experiments' optimizer, 32 sentences of 20 tokens;
# and each with fairseq's own Adam, as NAME/adam
BY_SENTENCES = {
    f"{name}{suffix}": ["--arch", name, *_VARIATIONAL, "--optimizer", optimizer]
    for name in ("vae_transformer", "vae_lstm", "transformer_decoder_lm")
    for suffix, optimizer in (("", "fused_adam"), ("/adam", "adam"))
}
# without attention to the one latent
_ADDITION = [*BY_SENTENCES["vae_transformer"], "--no-latent-attention"]
BY_SENTENCES["vae_transformer/addition"] = _ADDITION
SYSTEMS = {**BY_TOKENS, **BY_SENTENCES}
SENTENCES, SENTENCE_TOKENS = 32, 20


def build_trainer(system: str, precision: str, vocabulary: int, folder: Path, cpu: bool) -> Trainer:
    """fairseq's Trainer, as `fairseq-train` would build it, over a dictionary in `folder`."""
    folder = folder / str(vocabulary)
    if not folder.exists():
        folder.mkdir()
        text = "".join(f"w{i} 1\n" for i in range(vocabulary - 4))
        (folder / "dict.txt").write_text(text, encoding="utf-8")
    flags = [str(folder), "--user-dir", str(PLUGIN), "--task", "variational_lm", "--seed", "1"]
    flags += [*_OPTIMIZER, *SYSTEMS[system], *(["--cpu"] if cpu else [])]
    if precision == "fp16":
        flags += ["--fp16", *(["--fp16-no-flatten-grads"] if cpu else [])]
    if precision == "bfloat16":
        flags += ["--precision", "bfloat16", "--emulate-bfloat16"]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    task = tasks.setup_task(cfg.task)
    torch.manual_seed(1)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer._build_optimizer()  # as before a training; its moments are made in the first step
    return trainer


def make_batches(system: str, dictionary: Dictionary, tokens: int, count: int) -> list[dict]:
    """Batches of sentences of one length each: of `tokens` target tokens, or of `SENTENCES`."""
    rng = random.Random(1)
    batches = []
    for _ in range(count):
        if system in BY_SENTENCES:
            sizes = [SENTENCE_TOKENS] * SENTENCES
        else:
            length = rng.randint(24, 40)
            sizes = [length] * (tokens // length) + ([tokens % length] if tokens % length else [])
        target = [
            torch.tensor([rng.randrange(4, len(dictionary)) for _ in range(n - 1)] + [2])
            for n in sizes
        ]
        source = [torch.cat((torch.tensor([0]), sentence)) for sentence in target]
        sides = [(source, [len(x) for x in source]), (target, [len(x) for x in target])]
        data = LanguagePairDataset(
            *sides[0], dictionary, *sides[1], dictionary, left_pad_source=False
        )
        batches.append(data.collater([data[i] for i in range(len(data))]))
    return batches


def step_operations(model: nn.Module, batch: dict[str, Any]) -> float:
    """Floating-point operations of the matrix products of a training step, by arithmetic.

    Forward, a product with a weight takes 2 operations for each element and position that it is
    applied to (tables of embeddings none, the output projection 2 V C a target token), and
    attention 4 C for each pair of a query and a key, masked or not; backward takes twice that.
    Padding counts, as it is computed; activations, normalisation and softmax don't.
    """
    B, T = batch["net_input"]["src_tokens"].shape
    S = batch["target"].size(1)
    latents = getattr(getattr(model, "cfg", None), "latent_level", "token")
    memory = 1 if latents == "sentence" else T  # positions that cross-attention looks at
    forward = 0.0
    for name, weight in model.named_parameters():
        if weight.dim() != 2 or "embed" in name or "output_projection" in name:
            continue
        positions = T if name.startswith("encoder.") else S
        if (
            name.startswith("encoder.head.")
            or ".encoder_attn.k_" in name
            or ".encoder_attn.v_" in name
        ):
            positions = memory
        forward += 2 * weight.numel() * B * positions
        if name.endswith("self_attn.q_proj.weight"):
            forward += 4 * weight.size(0) * B * positions**2
        elif name.endswith("encoder_attn.q_proj.weight"):
            forward += 4 * weight.size(0) * B * S * memory
    projection = model.decoder.output_projection.weight
    return 3 * (forward + 2 * projection.numel() * B * S)
