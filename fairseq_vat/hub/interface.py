"""One Python interface over a checkpoint; tools and scripts go through it.

    vat = VATModel.from_pretrained("checkpoints")
    vectors = vat.embed(["A sentence.", "Another one."])

Shape legend: N sentences asked for, B of a batch, T source positions, P latents of a sentence (its
source positions at token level, 1 at sentence level), L latent width.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from fairseq_vat.errors import VATError
from fairseq_vat.hub.decoding import in_evaluation
from fairseq_vat.hub.latent_operations import LatentOperations
from fairseq_vat.hub.loading import TASK_SETTINGS, LoadedModel, bpe_of, build_bpe, load_model
from fairseq_vat.latent.choices import POOLINGS
from fairseq_vat.latent.gaussian import DiagonalGaussian, Latents, check_pooling, pool
from fairseq_vat.models.latent_encoder import EncoderOut
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.pretrained import path_of
from fairseq_vat.tasks.variational_lm import VariationalLMTask
from fairseq_vat.text.cutting import cut
from fairseq_vat.text.lines import clean_line
from fairseq_vat.text.pieces import check_subwords

logger = logging.getLogger(__name__)


class VATHubInterface(LatentOperations, nn.Module):
    """What can be done with a model that has latents, in the style of fairseq's hub interfaces.

    Sentences are read as `fairseq-interactive` reads them: cleaned, put into subwords, headed with
    the start token, and cut (with a warning) where they are longer than the model's positions.
    They are batched inside, by length; a sentence's result doesn't depend on the others, but for
    the rounding of sums. A batch is worked on where the model is: ``vat.cuda()`` moves it.

    Args:
        bpe: fairseq's encoder of subwords; None takes words apart at white space.
        max_tokens: source tokens in a batch, padding included.

    Raises:
        VATError: for a language model, which has no latents.
    """

    def __init__(
        self,
        cfg: DictConfig,
        task: VariationalLMTask,
        model: VATModel,
        bpe: Any = None,
        max_tokens: int = 8192,
    ):
        super().__init__()
        if not model.has_latents:
            raise VATError(
                "the checkpoint is a language model's, which has no latents: give one of a "
                "variational architecture, such as vae_transformer"
            )
        self.cfg, self.task, self.model, self.bpe = cfg, task, model, bpe
        self.max_tokens = max_tokens
        self.eval()

    @classmethod
    def of(cls, loaded: LoadedModel, bpe: Any = None) -> VATHubInterface:
        """Of a loaded checkpoint, with its own subwords unless others are given."""
        bpe = bpe_of(loaded.subwords) if bpe is None else bpe
        return cls(loaded.cfg, loaded.task, loaded.model, bpe)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def apply_bpe(self, sentence: str) -> str:
        """A sentence as subwords with single spaces between them."""
        sentence = clean_line(sentence)
        return self.bpe.encode(sentence) if self.bpe is not None else sentence

    def remove_bpe(self, sentence: str) -> str:
        """A sentence from its subwords; what would break a line becomes a space."""
        return clean_line(sentence if self.bpe is None else self.bpe.decode(sentence))

    def binarize(self, sentence: str) -> Tensor:
        """Token indices, (T,), of a sentence that is subwords already; the last is its end."""
        # fairseq's encode_line, without its writing of a tensor element by element
        dictionary = self.task.source_dictionary
        return torch.tensor([*map(dictionary.index, sentence.split()), dictionary.eos()])

    def encode(self, sentences: Sequence[str]) -> Latents:
        """Mean, log-variance and mask of the sentences' latents, in their order."""
        posteriors = self.posteriors(sentences)
        if not posteriors:
            nothing = torch.zeros(0, 0, self.model.encoder.latent_dim)
            return Latents(nothing, nothing, torch.zeros(0, 0, dtype=torch.bool))
        masks = [torch.ones(len(posterior.mean), dtype=torch.bool) for posterior in posteriors]
        return Latents(
            pad_sequence([posterior.mean for posterior in posteriors], batch_first=True),
            pad_sequence([posterior.logvar for posterior in posteriors], batch_first=True),
            pad_sequence(masks, batch_first=True),
        )

    def posteriors(self, sentences: Sequence[str]) -> list[DiagonalGaussian]:
        """The posterior of each sentence's latents, (P, L), on the CPU: `encode` without padding.

        One long sentence among many short ones makes `encode`'s arrays as wide as itself; here
        each takes its own room only.
        """
        found: dict[int, DiagonalGaussian] = {}
        for numbers, out in self._encoded(sentences):
            posterior = self.model.encoder.posterior(out).map(Tensor.cpu)
            for row, (number, keep_P) in enumerate(zip(numbers, ~_padding(out).cpu(), strict=True)):
                # copies, where views would keep the batch's padding
                found[number] = posterior.map(itemgetter((keep_P, row)))
        return [found[number] for number in range(len(found))]

    def embed(self, sentences: Sequence[str], pooling: str = "mean") -> np.ndarray:
        """One vector a sentence, (N, L): the mean of `embed_posterior`, in single precision."""
        return self.embed_posterior(sentences, pooling).mean.float().numpy()

    def embed_posterior(self, sentences: Sequence[str], pooling: str = "mean") -> DiagonalGaussian:
        """The distribution of one vector a sentence, (N, L), on the CPU.

        Args:
            pooling: ``mean`` or ``sum`` of a sentence's latents, start token and end of sentence
                included, or ``start``: the start token's. A model with one latent a sentence
                gives that latent, whichever is asked for.

        Raises:
            VATError: for another pooling, and ``start`` of a model without start tokens.
        """
        return self.embed_posteriors(sentences, (pooling,))[pooling]

    def embed_posteriors(
        self, sentences: Sequence[str], poolings: Sequence[str] = POOLINGS
    ) -> dict[str, DiagonalGaussian]:
        """`embed_posterior` for several poolings, the encoder run once."""
        encoder = self.model.encoder
        sentences = sentences if isinstance(sentences, str) else list(sentences)
        for name in poolings:
            check_pooling(name)
            if name == "start" and encoder.latent_level == "token" and not self.task.start_token:
                raise VATError("pooling 'start': the model was trained with --no-start-token")
        found = {}
        for name in poolings:
            mean_NL = torch.zeros(len(sentences), encoder.latent_dim, dtype=torch.float32)
            found[name] = DiagonalGaussian(mean_NL, torch.zeros_like(mean_NL))
        for numbers, out in self._encoded(sentences):
            for name, whole in found.items():
                pooled = pool(encoder.posterior(out), _padding(out), name)
                whole.mean[numbers] = pooled.mean.float().cpu()
                whole.logvar[numbers] = pooled.logvar.float().cpu()
        return found

    def _apply_bpe(self, sentences: Sequence[str]) -> list[str]:
        """`apply_bpe` of all; by as many threads as torch uses where sentencepiece can do that."""
        if isinstance(self.bpe, SentencepieceBPE) and not self.bpe.enable_sampling:
            cleaned = [clean_line(sentence) for sentence in sentences]
            lists = self.bpe.sp.Encode(cleaned, out_type=str, num_threads=torch.get_num_threads())
            return [" ".join(subwords) for subwords in lists]
        return [self.apply_bpe(sentence) for sentence in sentences]

    def _read(self, sentences: Sequence[str]) -> list[Tensor]:
        """The sentences' tokens, the start token apart, cut to the model's positions."""
        if isinstance(sentences, str):
            raise TypeError("a list of sentences is needed, not one string")
        lines = self._apply_bpe(sentences)
        check_subwords(lines, self.task.source_dictionary)
        tokens = [self.binarize(line) for line in lines]
        room = self.task.room
        too_long = sum(len(sentence) > room for sentence in tokens)
        if too_long:
            logger.warning(
                f"{too_long:,} of {len(tokens):,} sentences cut to their first {room - 1:,} "
                "subwords, the model's positions"
            )
        return [cut(sentence, room) for sentence in tokens]

    def batches(
        self, sentences: Sequence[str], rows: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """fairseq's batches of the sentences, where the model is, by length, with a progress bar.

        ``sample["id"]`` has the numbers of the batch's sentences, ``sample["net_input"]`` their
        ``src_tokens`` (B, T) and ``src_lengths`` (B,), the start token included. A batch has at
        most ``max_tokens`` tokens, and `rows` sentences where given.
        """
        tokens = self._read(sentences)
        if not tokens:
            return
        dataset = self.task.build_dataset_for_inference(tokens, [len(t) for t in tokens])
        order = np.argsort(dataset.src_sizes, kind="stable")
        max_tokens = max(self.max_tokens, int(dataset.src_sizes.max()))
        batches = dataset.batch_by_size(order, max_tokens=max_tokens, max_sentences=rows)
        # disable=None: where standard error is no terminal
        with tqdm(total=len(tokens), unit=" sentences", delay=1, leave=False, disable=None) as bar:
            for batch in batches:
                sample = dataset.collater([dataset[number] for number in batch])
                yield utils.apply_to_sample(lambda x: x.to(self.device), sample)
                bar.update(len(batch))

    def _encoded(self, sentences: Sequence[str]) -> Iterator[tuple[list[int], EncoderOut]]:
        """The encoder's output, batch by batch, with the numbers of the batch's sentences."""
        with in_evaluation(self.model):
            for sample in self.batches(sentences):
                net_input = sample["net_input"]
                with torch.no_grad():
                    out = self.model.encoder(net_input["src_tokens"], net_input["src_lengths"])
                yield sample["id"].tolist(), out


def from_pretrained(
    model_name_or_path: str | os.PathLike,
    checkpoint_file: str | None = None,
    data_name_or_path: str | os.PathLike | None = None,
    bpe: str | None = None,
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> VATHubInterface:
    """A checkpoint as a `VATHubInterface`; `VATModel.from_pretrained` is the same.

    Args:
        model_name_or_path: the checkpoint, its folder, or ``vat-small``; nothing is downloaded.
        checkpoint_file: the checkpoint's name in the folder; None takes ``checkpoint_last.pt``, or
            else ``model.pt``.
        data_name_or_path: the data directory, for its dict.txt; one that starts with a dot is
            looked for in `model_name_or_path`, as everywhere in fairseq's hub. None takes the
            dictionary that the checkpoint holds, or one beside it.
        bpe: fairseq's name of the subwords, such as ``sentencepiece``; its settings are keywords
            (``sentencepiece_model=...``). None takes those that the checkpoint holds.
        **kwargs: settings of the subwords, and of the task as for `load_model`.

    Raises:
        VATError: for everything `load_model` and `build_bpe` refuse.
    """
    path = path_of(model_name_or_path)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    data = None if data_name_or_path is None else os.fspath(data_name_or_path)
    if data is not None and data.startswith("."):
        data = os.path.abspath(os.path.join(folder, data))
    settings = {name: kwargs.pop(name) for name in list(kwargs) if name not in TASK_SETTINGS}
    encoder = build_bpe(bpe, **settings)
    path = path if checkpoint_file is None else os.path.join(folder, checkpoint_file)
    return VATHubInterface.of(load_model(path, data, device, **kwargs), encoder)


def _padding(out: EncoderOut) -> Tensor:
    return out["encoder_padding_mask"][0]
