"""From latents to text, through fairseq's own generators; files of latents and of vectors.

Shape legend: P latents of a sentence (its source positions at token level, 1 at sentence level),
B sentences of a batch, L latent width.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.latent.gaussian import DiagonalGaussian, Latents
from fairseq_vat.latent.prior import LARGEST_STD
from fairseq_vat.models.latent_encoder import as_memory
from fairseq_vat.tasks.flag_checks import check_search
from fairseq_vat.tasks.generation import (
    MAX_ROWS,
    LatentSampling,
    LatentSequenceGenerator,
    VariationalSequenceGenerator,
)

# of fairseq's generation, those that make a difference to one sentence for each draw
_SETTINGS = (
    *("max_len_a", "max_len_b", "min_len", "match_source_len", "unnormalized", "lenpen", "unkpen"),
    *("no_repeat_ngram_size", "sampling", "sampling_topk", "sampling_topp", "temperature"),
    *("diverse_beam_groups", "diverse_beam_strength", "diversity_rate"),
)


class LatentDecoding:
    """Decoding, for `VATHubInterface`."""

    def decode(
        self,
        latents: Latents | Sequence[Tensor | np.ndarray],
        beam: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Sentences from latents; with a latent for every token an empty one of its latents alone.

        Args:
            latents: what `encode` gave (its means are decoded), or one (P, L) array a sentence;
                at sentence level also (L,).

        Raises:
            VATError: for arrays of another shape, or with values that aren't finite.
        """
        points = [self._point(number, x) for number, x in enumerate(separate(latents))]
        generator = self._generator(beam, generation, latents_given=True)
        sentences = [""] * len(points)
        # those of an empty sentence are of its end and start tokens: fairseq would invent one
        empty = 1 + int(self.task.start_token)
        least = empty + 1 if self.model.encoder.latent_level == "token" else 1
        order = [number for number, point in enumerate(points) if len(point) >= least]
        order.sort(key=lambda number: len(points[number]))
        at_once = max(1, MAX_ROWS // generator.beam_size)
        progress = tqdm(total=len(order), unit=" sentences", delay=1, leave=False, disable=None)
        with in_evaluation(self.model), progress as bar:
            for first in range(0, len(order), at_once):
                numbers = order[first : first + at_once]
                found = generator.generate(
                    [self.model], self._given([points[number] for number in numbers])
                )
                for number, hypotheses in zip(numbers, found, strict=True):
                    sentences[number] = self._text(hypotheses[0])
                bar.update(len(numbers))
        return sentences

    def _point(self, number: int, x: Tensor | np.ndarray) -> Tensor:
        """Latents of one sentence, (P, L), checked."""
        point = torch.as_tensor(x).float().cpu()
        level, width = self.model.encoder.latent_level, self.model.encoder.latent_dim
        if point.dim() == 1 and level == "sentence":
            point = point.unsqueeze(0)
        rows = "1" if level == "sentence" else "P"
        fits = point.dim() == 2 and point.size(1) == width and len(point) > 0
        if not fits or (level == "sentence" and len(point) > 1):
            raise VATError(
                f"latents number {number} are of shape {tuple(point.shape)}: the model needs "
                f"({rows}, {width})"
            )
        if not bool((point.abs() <= LARGEST_STD).all()):
            raise VATError(f"latents number {number} hold values that aren't finite, or too large")
        return point

    def _given(self, points: list[Tensor]) -> dict[str, Any]:
        """A batch for the generator whose encoder output is there already."""
        device, dtype = self.device, next(self.model.parameters()).dtype
        lengths_B = torch.tensor([len(point) for point in points])
        memory_PBL = pad_sequence(points).to(device, dtype)
        mask_BP = (torch.arange(len(memory_PBL)) >= lengths_B.unsqueeze(1)).to(device)
        dictionary = self.task.source_dictionary
        tokens_BP = mask_BP.new_full(mask_BP.shape, dictionary.unk(), dtype=torch.long)
        if self.task.start_token:
            tokens_BP[:, 0] = dictionary.bos()
        tokens_BP.scatter_(1, (lengths_B - 1).unsqueeze(1).to(device), dictionary.eos())
        return {
            "net_input": {
                "src_tokens": tokens_BP.masked_fill(mask_BP, dictionary.pad()),
                "src_lengths": lengths_B.to(device),
                "encoder_outs": [as_memory(memory_PBL, mask_BP)],
            }
        }

    def _generator(
        self,
        beam: int | None,
        generation: dict[str, Any],
        sampling: LatentSampling | None = None,
        latents_given: bool = False,
    ) -> Any:
        """fairseq's generator with its defaults, and what is given instead."""
        settings = OmegaConf.structured(GenerationConfig)
        for name in generation:
            if name not in _SETTINGS:
                raise TypeError(f"{name} is no setting: there are beam, {', '.join(_SETTINGS)}")
        if beam is None:
            beam = 1 if generation.get("sampling") else 5
        settings.update(beam=beam, **generation)
        check_search(settings)
        if settings.sampling and beam > 1:
            raise VATError(
                f"beam {beam}: with sampling it must be 1, the best of several is no sample"
            )
        by_length = settings.match_source_len or settings.max_len_a
        if latents_given and by_length and self.model.encoder.latent_level == "sentence":
            raise VATError(
                "match_source_len and max_len_a: the latent of a whole sentence has no length"
            )
        kwargs: dict[str, Any] = {}
        if sampling is not None:
            kwargs = {
                "seq_gen_cls": VariationalSequenceGenerator,
                "extra_gen_cls_kwargs": {"latent_sampling": sampling, "nbest": 1},
            }
        elif latents_given:
            kwargs = {"seq_gen_cls": LatentSequenceGenerator}
        with in_evaluation(self.model):  # which fairseq's would leave it in
            return self.task.build_generator([self.model], settings, **kwargs)

    def _generate(
        self, generator: Any, sentences: Sequence[str], positions: list[list[int]] | None = None
    ) -> list[list[str]]:
        """The hypotheses of each sentence, one a draw."""
        with in_evaluation(self.model):
            return self._generated(generator, sentences, positions)

    def _generated(
        self, generator: Any, sentences: Sequence[str], positions: list[list[int]] | None
    ) -> list[list[str]]:
        found: dict[int, list[str]] = {}
        for sample in self.batches(sentences, rows=max(1, MAX_ROWS // generator.beam_size)):
            numbers = sample["id"].tolist()
            if positions is not None:
                drawn_BT = torch.zeros_like(sample["net_input"]["src_tokens"], dtype=torch.bool)
                for row, number in enumerate(numbers):
                    drawn_BT[row, positions[number]] = True
                sample["latent_positions"] = drawn_BT
            decoded = self.task.inference_step(generator, [self.model], sample)
            for number, hypotheses in zip(numbers, decoded, strict=True):
                sampling = getattr(generator, "latent_sampling", None)
                count = 1 if sampling is None else sampling.samples
                found[number] = [self._text(hypothesis) for hypothesis in hypotheses[:count]]
        return [found[number] for number in range(len(found))]

    def _text(self, hypothesis: dict[str, Tensor]) -> str:
        tokens = hypothesis["tokens"].int().cpu()
        return self.remove_bpe(self.task.target_dictionary.string(tokens))


@contextlib.contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Without dropout; each part is as it was afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def separate(latents: Any) -> list[Any]:
    """One array a sentence, out of what `encode` or `posteriors` gives, or a list of arrays."""
    if hasattr(latents, "mask"):
        return [mean[mask] for mean, mask in zip(latents.mean, latents.mask, strict=True)]
    return [one.mean if isinstance(one, DiagonalGaussian) else one for one in latents]


def save_vectors(path: str | os.PathLike, vectors: np.ndarray) -> None:
    """Write what `VATHubInterface.embed` gives as a .npy file, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, vectors, allow_pickle=False)


def save_latents(path: str | os.PathLike, latents: Latents) -> None:
    """Write what `VATHubInterface.encode` gives as a .npz file with its fields, likewise."""
    arrays = {name: tensor.numpy() for name, tensor in latents._asdict().items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_latents(path: str | os.PathLike) -> list[np.ndarray]:
    """The means of each sentence, (P, L), in single precision, for `VATHubInterface.decode`.

    Args:
        path: a file of `save_latents`, or a .npy file of one latent a sentence, (N, L).

    Raises:
        VATError: for any other file.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if hasattr(loaded, "files"):
            mean, mask = loaded["mean"], loaded["mask"].astype(bool)
            points = [rows[kept] for rows, kept in zip(mean, mask, strict=True)]
        else:
            points = list(loaded)
        if any(point.dtype.kind not in "fiu" for point in points):
            raise ValueError(f"its values are of type {points[0].dtype}")
        return [point.astype(np.float32) for point in points]
    except OSError:
        raise
    except Exception as error:  # of what kind depends on what is wrong with the header
        # what numpy advises of a file that it can't read is to trust it
        reason = "it is another kind of file" if "allow_pickle" in str(error) else error
        raise VATError(
            f"{path} isn't a .npz of 'fairseq-vat encode' or a .npy of numbers: {reason}"
        ) from error
