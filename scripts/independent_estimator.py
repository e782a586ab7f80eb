#!/usr/bin/env python3
"""The figures of a model with one latent a sentence, from its weights, the raw text and arithmetic.

Nothing of fairseq_vat or fairseq is used: text is tokenized here, forward passes are written out
over the checkpoint's tensors, and the measures are docs/measures.md's. Sentences of one length go
together, so that nothing is padded. For the VAE-Transformer paper's Transformers, LSTMs and GRUs
with its prior N(0, I).

    python scripts/independent_estimator.py CHECKPOINT DATA/dict.txt test.txt --wordpiece vocab.txt
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BOS, EOS, UNK = 0, 2, 3  # fairseq's symbols; 1 is its padding


class Model:
    """A checkpoint's tensors, of which every one has to be read."""

    def __init__(self, path: str):
        state = torch.load(path, weights_only=True, map_location="cpu")
        tensors = state["model"].items()  # fairseq has a version beside the parameters
        self._tensors = {n: t.float() for n, t in tensors if not n.endswith(".version")}
        self._read: set[str] = set()
        self.settings = state["cfg"]["model"]
        self.has_latents = "encoder.head.mean.weight" in self
        if self.has_latents and state["cfg"]["criterion"]["prior_std"] != 1:
            sys.exit(f"{path}: --prior-std must be 1, as in the paper")

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        self._read.add(name)
        return self._tensors[name]

    def unread(self) -> list[str]:
        return sorted(set(self._tensors) - self._read)

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Sentences of one length (B, n) to means and log-variances (B, L)."""
        ends = rows.new_ones(len(rows), 1)
        source = torch.cat((ends * BOS, rows, ends * EOS), 1)
        recurrent = "encoder.body.rnn.weight_ih_l0" in self
        summary = _final_states(self, source) if recurrent else _first_position(self, source)
        mean, logvar = (f"encoder.head.{name}" for name in ("mean", "logvar"))
        return self.linear(summary, mean), self.linear(summary, logvar)

    def nll(self, rows: Tensor, z: Tensor | None) -> Tensor:
        """-log p(x | z) in nats (B,) of sentences (B, n), their ends counted."""
        ends = rows.new_full((len(rows), 1), EOS)
        previous, target = torch.cat((ends, rows), 1), torch.cat((rows, ends), 1)
        recurrent = "decoder.rnn.weight_ih_l0" in self
        x = (_recurrent_decoder if recurrent else _transformer_decoder)(self, previous, z)
        logits = self.linear(x, "decoder.output_projection")
        picked = logits.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return (torch.logsumexp(logits, -1) - picked).double().sum(1)


def _embed(model: Model, tokens: Tensor, side: str) -> Tensor:
    """With sinusoidal positions: sines in the first half, cosines in the second, from 2 on."""
    table = model[f"{side}.embed_tokens.weight"]
    half = table.shape[1] // 2
    rates = torch.exp(torch.arange(half).double() * (-math.log(10000) / (half - 1)))
    angles = torch.arange(2, 2 + tokens.shape[1]).double().unsqueeze(1) * rates
    positions = torch.cat((angles.sin(), angles.cos()), 1).float()
    return table[tokens] * math.sqrt(table.shape[1]) + positions


def _norm(model: Model, x: Tensor, name: str) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    scaled = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    return scaled * model[f"{name}.weight"] + model[f"{name}.bias"]


def _attend(model: Model, x: Tensor, memory: Tensor, name: str, causal: bool = False) -> Tensor:
    heads = model.settings[f"{name.partition('.')[0]}_attention_heads"]
    inputs = {"q": x, "k": memory, "v": memory}
    products = (model.linear(y, f"{name}.{part}_proj") for part, y in inputs.items())
    q, k, v = (product.unflatten(-1, (heads, -1)).transpose(1, 2) for product in products)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -math.inf).triu(1)
    return model.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"{name}.out_proj")


def _feed_forward(model: Model, x: Tensor, layer: str) -> Tensor:
    activation = {"relu": torch.relu, "gelu": torch.nn.functional.gelu}
    inner = activation[model.settings["activation_fn"]](model.linear(x, f"{layer}.fc1"))
    return _norm(model, x + model.linear(inner, f"{layer}.fc2"), f"{layer}.final_layer_norm")


def _layers(model: Model, prefix: str) -> Iterator[str]:
    number = 0
    while f"{prefix}.{number}.fc1.weight" in model:
        yield f"{prefix}.{number}"
        number += 1


def _first_position(model: Model, source: Tensor) -> Tensor:
    x = _embed(model, source, "encoder.body")
    for layer in _layers(model, "encoder.body.layers"):
        x = x + _attend(model, x, x, f"{layer}.self_attn")
        x = _feed_forward(model, _norm(model, x, f"{layer}.self_attn_layer_norm"), layer)
    return x[:, 0]


def _transformer_decoder(model: Model, previous: Tensor, z: Tensor | None) -> Tensor:
    x = _embed(model, previous, "decoder")
    for layer in _layers(model, "decoder.layers"):
        x = x + _attend(model, x, x, f"{layer}.self_attn", causal=True)
        x = _norm(model, x, f"{layer}.self_attn_layer_norm")
        if z is not None:
            x = x + _attend(model, x, z.unsqueeze(1), f"{layer}.encoder_attn")
            x = _norm(model, x, f"{layer}.encoder_attn_layer_norm")
        x = _feed_forward(model, x, layer)
    return x


def _recur(model: Model, x: Tensor, name: str, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """An LSTM's or GRU's layer over (B, S, E), a step at a time: outputs (B, S, H), last h."""
    to_input, to_state = (model[name.format(f"weight_{part}")] for part in ("ih", "hh"))
    inputs = x @ to_input.T + model[name.format("bias_ih")]
    outputs = []
    for t in range(x.shape[1]):
        a, b = inputs[:, t], h @ to_state.T + model[name.format("bias_hh")]
        if to_state.shape[0] == 4 * to_state.shape[1]:
            i, f, g, o = (a + b).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        else:
            (a_r, a_u, a_n), (b_r, b_u, b_n) = a.chunk(3, 1), b.chunk(3, 1)
            u = (a_u + b_u).sigmoid()
            h = (1 - u) * (a_n + (a_r + b_r).sigmoid() * b_n).tanh() + u * h
        outputs.append(h)
    return torch.stack(outputs, 1), h


def _final_states(model: Model, source: Tensor) -> Tensor:
    """The last layer's, forwards and backwards."""
    x, number = model["encoder.body.embed_tokens.weight"][source], 0
    while f"encoder.body.rnn.weight_ih_l{number}" in model:
        name = f"encoder.body.rnn.{{}}_l{number}"
        zeros = x.new_zeros(len(x), model[name.format("weight_hh")].shape[1])
        ahead, last_ahead = _recur(model, x, name, zeros, zeros)
        back, last_back = _recur(model, x.flip(1), f"{name}_reverse", zeros, zeros)
        x, number = torch.cat((ahead, back.flip(1)), 2), number + 1
    return torch.cat((last_ahead, last_back), 1)


def _recurrent_decoder(model: Model, previous: Tensor, z: Tensor | None) -> Tensor:
    """z makes the initial states, all layers' h before their c, and is in every input."""
    x = model["decoder.embed_tokens.weight"][previous]
    weights = model["decoder.rnn.weight_hh_l0"]
    hidden, has_cells = weights.shape[1], weights.shape[0] == 4 * weights.shape[1]
    layers = sum(f"decoder.rnn.weight_ih_l{n}" in model for n in range(100))
    if z is None:
        states = (x.new_zeros(len(x), hidden),) * (2 * layers)
    else:
        states = model.linear(z, "decoder.initial").chunk(layers * (1 + has_cells), 1)
        x = torch.cat((x, z.unsqueeze(1).expand(-1, x.shape[1], -1)), 2)
    for number in range(layers):
        cell = states[layers + number] if has_cells else states[number]
        x, _ = _recur(model, x, f"decoder.rnn.{{}}_l{number}", states[number], cell)
    return x


def tokenizer(args: argparse.Namespace) -> Callable[[str], list[str]]:
    """From a line to its pieces."""
    if args.wordpiece:
        from tokenizers import BertWordPieceTokenizer

        pieces = BertWordPieceTokenizer(args.wordpiece, lowercase=True)
        return lambda line: pieces.encode(line, add_special_tokens=False).tokens
    if args.sentencepiece:
        from sentencepiece import SentencePieceProcessor

        model = SentencePieceProcessor(model_file=args.sentencepiece)
        return lambda line: model.encode(line, out_type=str)
    return str.split


def read(args: argparse.Namespace, most: int) -> list[list[int]]:
    """The text's lines as numbers of the dictionary, each cut to its first `most`."""
    with open(args.dictionary, encoding="utf-8") as file:
        index = {line.rpartition(" ")[0]: number for number, line in enumerate(file, UNK + 1)}
    pieces = tokenizer(args)
    with open(args.text, encoding="utf-8") as file:
        lines = [" ".join(line.split()) for line in file]
    return [[index.get(piece, UNK) for piece in pieces(line)[:most]] for line in lines if line]


def of_one_length(sentences: list[list[int]], tokens: int = 1000) -> Iterator[list[int]]:
    """Numbers of sentences that go together."""
    by_length: dict[int, list[int]] = {}
    for number, sentence in enumerate(sentences):
        by_length.setdefault(len(sentence), []).append(number)
    for length, numbers in sorted(by_length.items()):
        step = max(1, tokens // (length + 1))
        yield from (numbers[start : start + step] for start in range(0, len(numbers), step))


def likelihoods(model: Model, sentences: list[list[int]], z: Tensor | None) -> Tensor:
    """Nats of every sentence, (N,)."""
    nll = torch.zeros(len(sentences), dtype=torch.float64)
    for numbers in of_one_length(sentences):
        rows = torch.tensor([sentences[number] for number in numbers])
        nll[numbers] = model.nll(rows, None if z is None else z[numbers])
    return nll


def log_normal(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    squares = (z - mean).square() / logvar.exp() + logvar + math.log(2 * math.pi)
    return -0.5 * squares.sum(-1)


def mutual_information(z: Tensor, mean: Tensor, logvar: Tensor) -> float:
    """E log q(z | x) - E log q(z) of a draw of each of N sentences, in nats."""
    log_q = torch.stack([log_normal(row, mean, logvar) for row in z])  # of draw i under posterior j
    marginal = torch.logsumexp(log_q, 1) - math.log(len(z))
    return float((log_q.diagonal() - marginal).mean())


def figures(model: Model, sentences: list[list[int]], samples: int, batch: int) -> dict:
    """Every figure that the paper's tables have; perplexities per token, the rest in nats."""
    count, tokens = len(sentences), sum(map(len, sentences)) + len(sentences)

    def perplexity(nats: Tensor) -> float:
        return math.exp(float(nats.sum()) / tokens)

    found = {"sentences": count, "tokens": tokens}
    if not model.has_latents:
        return found | {"ppl": perplexity(likelihoods(model, sentences, None))}
    width = model["encoder.head.mean.weight"].shape[0]
    mean, logvar = torch.zeros(count, width), torch.zeros(count, width)
    for numbers in of_one_length(sentences):
        rows = torch.tensor([sentences[number] for number in numbers])
        mean[numbers], logvar[numbers] = model.encode(rows)
    ppl_of_means = perplexity(likelihoods(model, sentences, mean))
    noise = torch.randn(samples, count, width, generator=torch.Generator().manual_seed(1))
    z = mean + (logvar / 2).exp() * noise
    nll = torch.stack([likelihoods(model, sentences, draw) for draw in z])
    z, mean, logvar = z.double(), mean.double(), logvar.double()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
    weights = log_normal(z, *torch.zeros(2, 1, dtype=z.dtype)) - log_normal(z, mean, logvar) - nll
    groups = [group for group in torch.arange(count).split(batch) if len(group) == batch]
    by_batches = [
        mutual_information(draw[group], mean[group], logvar[group])
        for draw in z
        for group in groups
    ]
    whole = [mutual_information(draw, mean, logvar) for draw in z]
    return found | {
        "ppl": perplexity(nll.mean(0)),
        "ppl_of_draws": [perplexity(draw) for draw in nll],
        "ppl_of_means": ppl_of_means,
        "kl": float(kl.mean()),
        "mi": sum(by_batches) / max(len(by_batches), 1),
        "mi_whole": sum(whole) / samples,
        "elbo_ppl": perplexity(nll.mean(0) + kl),
        "iw_ppl": perplexity(math.log(samples) - torch.logsumexp(weights, 0)),
        "active_units": int((mean.var(0) > 0.01).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("dictionary", help="the dict.txt it was trained with")
    parser.add_argument("text", help="a sentence a line")
    pieces = parser.add_mutually_exclusive_group()
    pieces.add_argument("--wordpiece", metavar="FILE", help="vocab.txt; without either, words")
    pieces.add_argument("--sentencepiece", metavar="FILE", help="model of sentencepiece")
    parser.add_argument("--samples", type=int, default=10, help="draws (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="of MI (default: %(default)s)")
    args = parser.parse_args()
    with torch.inference_mode():
        model = Model(args.checkpoint)
        most = model.settings.get("max_source_positions") or 1024
        found = figures(model, read(args, most - 2), args.samples, args.batch)
    if unread := model.unread():
        sys.exit(f"{args.checkpoint}: not of a known kind, {unread[0]} has no place in it")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
