"""What can be decoded from latent space: the generating half of the hub interface.

Shape legend: N sentences, P latents of a sentence (its source positions at token level, 1 at
sentence level), B sentences of a batch, L latent width, K draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fairseq.data import data_utils
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf, open_dict
from torch import Tensor
from tqdm import tqdm

from fairseq_vat import interpolation, noise
from fairseq_vat.errors import VATError
from fairseq_vat.generation import (
    MAX_ROWS,
    LatentSampling,
    LatentSequenceGenerator,
    VariationalSequenceGenerator,
)
from fairseq_vat.marks import marked_pieces, parse_marks, read_marked
from fairseq_vat.text import clean_line

if TYPE_CHECKING:
    from fairseq_vat.hub import Latents


class LatentMoves:
    """Decoding, for `VATHubInterface`; its methods take and give lists.

    Every method takes fairseq's generation settings as keywords: ``beam=5`` (the VAT paper's),
    ``lenpen=...``, ``max_len_b=...``, ``sampling=True, sampling_topk=10`` and so on. The result for
    a sentence doesn't depend on the others, but for the rounding of sums, except that fairseq's
    ``sampling`` draws tokens from torch's global generator.
    """

    def reconstruct(self, sentences: Sequence[str], beam: int = 5, **generation: Any) -> list[str]:
        """The sentences, decoded from the means of their latents."""
        generator = self._generator(beam, generation)
        return [found[0] for found in self._generate(generator, sentences)]

    def sample(
        self,
        sentences: Sequence[str],
        samples: int = 4,
        temperature: float = 1.0,
        seed: int = 1,
        beam: int = 5,
        **generation: Any,
    ) -> list[list[str]]:
        """Variants of each sentence: decoded from draws of its posterior (VAT paper, table 1).

        Args:
            sentences: any number of them.
            samples: K, draws a sentence.
            temperature: factor on the posterior's standard deviation.
            seed: with the sentence and the draw's number it fixes a draw.
            beam: width of the beam search.
            **generation: settings of fairseq's generation.
        """
        sampling = _sampling(samples, temperature, seed)
        return self._generate(self._generator(beam, generation, sampling), sentences)

    def vary(
        self,
        marked: Sequence[str],
        samples: int = 8,
        temperature: float = 1.0,
        seed: int = 1,
        beam: int = 5,
        marks: str = "[]",
        **generation: Any,
    ) -> list[list[str]]:
        """Variants of the marked words: only their latents are drawn (VAT paper, table 2).

        Args:
            marked: sentences with marks around words, or parts of words, as in ``a [great]
                success``; ``\\[`` is a bracket that is text.
            samples: K, draws a sentence.
            temperature: factor on the posterior's standard deviation.
            seed: as for `sample`; a word is drawn as `sample` would draw it.
            beam: width of the beam search.
            marks: the opening and the closing mark, as for `fairseq_vat.marks.parse_marks`.
            **generation: settings of fairseq's generation.

        Raises:
            VATError: for a sentence without marks, or with marks that don't pair, for marked words
                beyond the model's positions, and for a model with one latent a sentence.
        """
        sampling = _sampling(samples, temperature, seed)
        sentences, positions = self.read_marked(marked, marks)
        generator = self._generator(beam, generation, sampling)
        return self._generate(generator, sentences, positions)

    def read_marked(
        self, marked: Sequence[str], marks: str = "[]"
    ) -> tuple[list[str], list[list[int]]]:
        """The sentences without marks, and the source positions of what was marked in each.

        Raises:
            VATError: as for `vary`.
        """
        if isinstance(marked, str):
            raise TypeError("a list of sentences is needed, not one string")
        if self.model.encoder.latent_level != "token":
            raise VATError(
                "a word can't be varied alone: the model has one latent for a whole sentence; "
                "take a model with --latent-level token, or sample"
            )
        opening_closing = parse_marks(marks)
        sentences, positions = [], []
        room = self.task.max_positions()[0]
        first = int(self.task.start_token)
        for text in marked:
            found = read_marked(clean_line(text), opening_closing)
            if not found.spans:
                opening, closing = opening_closing
                raise VATError(
                    f"{text!r}: no word is marked; put {opening} and {closing} around what is to "
                    "be varied"
                )
            pieces = marked_pieces(found, self.apply_bpe, self.remove_bpe)
            if pieces[-1] + first >= room - 1:
                raise VATError(
                    f"{text!r}: a marked word is subword {pieces[-1] + 1}, and the model reads the "
                    f"first {room - 1 - first} only"
                )
            sentences.append(found.sentence)
            positions.append([piece + first for piece in pieces])
        return sentences, positions

    def interpolate(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        steps: int = 5,
        method: str = "linear",
        beam: int = 5,
        **generation: Any,
    ) -> list[list[str]]:
        """Sentences on the way from one to another, both ends included (VAT paper, table 3).

        Args:
            firsts: N sentences.
            seconds: as many.
            steps: sentences of each way, the reconstructions of the two with them; the paper has 5.
            method: ``linear`` or ``spherical``: see `fairseq_vat.interpolation`, also for what
                pads the shorter sentence.
            beam: width of the beam search.
            **generation: settings of fairseq's generation.
        """
        if len(firsts) != len(seconds):
            raise ValueError(f"{len(firsts)} sentences and {len(seconds)} to go to")
        if steps < 2:
            raise VATError(f"{steps} steps: give at least 2, the two sentences themselves")
        if method not in interpolation.METHODS:
            raise VATError(f"method {method!r}: must be {' or '.join(interpolation.METHODS)}")
        latents = _separate(self.encode([*firsts, *seconds]))
        ways = [
            interpolation.interpolate(latents[number], latents[len(firsts) + number], steps, method)
            for number in range(len(firsts))
        ]
        decoded = self.decode([point for way in ways for point in way], beam, **generation)
        return [decoded[first : first + steps] for first in range(0, len(decoded), steps)]

    def arithmetic(
        self,
        a: Sequence[str],
        b: Sequence[str],
        c: Sequence[str],
        pooling: str = "mean",
        beam: int = 5,
        **generation: Any,
    ) -> list[str]:
        """a - b + c, decoded: what b is to a, to c.

        With one latent a sentence it is z(a) - z(b) + z(c). With a latent for every token, a's
        latents are each moved by the difference of the pooled latents of c and b: a keeps its
        length and its words' order.

        Args:
            a: N sentences.
            b: as many.
            c: as many.
            pooling: ``mean``, ``sum`` or ``start``, of b's and c's latents.
            beam: width of the beam search.
            **generation: settings of fairseq's generation.
        """
        if not len(a) == len(b) == len(c):
            raise ValueError(f"{len(a)}, {len(b)} and {len(c)} sentences: as many of each, please")
        shift_NL = torch.from_numpy(self.embed(c, pooling) - self.embed(b, pooling))
        points = _separate(self.encode(a))
        moved = [point + shift for point, shift in zip(points, shift_NL, strict=True)]
        return self.decode(moved, beam, **generation)

    def sample_prior(
        self,
        count: int,
        length: int | None = None,
        prior_std: float | None = None,
        temperature: float = 1.0,
        seed: int = 1,
        beam: int = 5,
        **generation: Any,
    ) -> list[str]:
        """Sentences decoded from latents drawn from the prior N(0, s^2 I).

        Args:
            count: how many.
            length: subwords of a sentence, without start token and end of sentence; None draws
                lengths from those of the training data, which has to be in the data directory.
                Without meaning where a sentence has one latent.
            prior_std: s; None takes the training's.
            temperature: factor on s.
            seed: with the draw's number it fixes a draw.
            beam: width of the beam search.
            **generation: settings of fairseq's generation.

        Raises:
            VATError: for numbers out of range, and if lengths can't be drawn for want of the
                training data.
        """
        _check_temperature(temperature)
        if count < 1:
            raise VATError(f"{count} samples: give at least 1")
        s = float(self.cfg.criterion.prior_std) if prior_std is None else prior_std
        if not 0 < s < float("inf"):
            raise VATError(f"--prior-std must be above 0, not {s}")
        keys = torch.arange(count)
        width = self.model.encoder.latent_dim
        lengths = self._prior_lengths(count, length, seed)
        points = [
            temperature * s * noise.normal(keys[n : n + 1], lengths[n], width, seed)[:, 0]
            for n in range(count)
        ]
        return self.decode(points, beam, **generation)

    def _prior_lengths(self, count: int, length: int | None, seed: int) -> list[int]:
        """Latents of each of `count` sentences."""
        if self.model.encoder.latent_level == "sentence":
            if length is not None:
                raise VATError(
                    "--length: the model has one latent for a whole sentence, whatever its length"
                )
            return [1] * count
        room = self.task.max_positions()[0]
        extra = 1 + int(self.task.start_token)
        if length is not None:
            if not 1 <= length <= room - extra:
                raise VATError(
                    f"--length {length}: must be from 1 to {room - extra}, the model's positions"
                )
            return [length + extra] * count
        path = f"{self.cfg.task.data.split(':')[0]}/{self.task.cfg.train_subset}"
        sentences = data_utils.load_indexed_dataset(path, self.task.source_dictionary)
        if sentences is None or len(sentences) == 0:
            raise VATError(
                f"no {path}.bin and .idx to draw lengths from: give a length, or the data "
                "directory of the training"
            )
        sizes = np.asarray(sentences.sizes)
        drawn = np.random.default_rng(seed).random(count)  # number n doesn't depend on the count
        chosen = sizes[(drawn * len(sizes)).astype(int)] + extra - 1
        return np.minimum(chosen, room).tolist()

    def decode(
        self, latents: Latents | Sequence[Tensor | np.ndarray], beam: int = 5, **generation: Any
    ) -> list[str]:
        """Sentences from latents.

        Args:
            latents: what `encode` gave (its means are decoded), or one (P, L) array a sentence;
                at sentence level also (L,).
            beam: width of the beam search.
            **generation: settings of fairseq's generation.

        Raises:
            VATError: for arrays of another shape, or with values that aren't finite.
        """
        points = [self._point(number, x) for number, x in enumerate(_separate(latents))]
        generator = self._generator(beam, generation, latents_given=True)
        sentences = [""] * len(points)
        order = sorted(range(len(points)), key=lambda number: len(points[number]))
        at_once = max(1, MAX_ROWS // generator.beam_size)
        with _progress(len(points)) as bar:
            for first in range(0, len(points), at_once):
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
        if not bool(point.isfinite().all()):
            raise VATError(f"latents number {number} hold values that aren't finite")
        return point

    def _given(self, points: list[Tensor]) -> dict[str, Any]:
        """A batch for the generator whose encoder output is there already."""
        device, dtype = self.device, next(self.model.parameters()).dtype
        lengths_B = torch.tensor([len(point) for point in points])
        memory_PBL = torch.nn.utils.rnn.pad_sequence(points).to(device, dtype)
        mask_BP = (torch.arange(len(memory_PBL)) >= lengths_B.unsqueeze(1)).to(device)
        memory = {name: [] for name in ("encoder_embedding", "encoder_states", "src_tokens")}
        memory |= {
            "src_lengths": [],
            "encoder_out": [memory_PBL],
            "encoder_padding_mask": [mask_BP],
        }
        tokens_BP = mask_BP.new_full(mask_BP.shape, 0, dtype=torch.long)
        return {
            "net_input": {
                "src_tokens": tokens_BP.masked_fill(mask_BP, self.task.source_dictionary.pad()),
                "src_lengths": lengths_B.to(device),
                "encoder_outs": [memory],
            }
        }

    def _generator(
        self,
        beam: int,
        generation: dict[str, Any],
        sampling: LatentSampling | None = None,
        latents_given: bool = False,
    ) -> Any:
        """fairseq's generator with its defaults, and what is given instead."""
        settings = OmegaConf.structured(GenerationConfig)
        with open_dict(settings):
            for name, value in {"beam": beam, "nbest": 1, **generation}.items():
                if name not in settings:
                    raise TypeError(f"fairseq's generation has no setting {name!r}")
                settings[name] = value
        if beam < 1:
            raise VATError(f"--beam must be at least 1, not {beam}")
        kwargs: dict[str, Any] = {}
        if sampling is not None:
            kwargs = {
                "seq_gen_cls": VariationalSequenceGenerator,
                "extra_gen_cls_kwargs": {"latent_sampling": sampling, "nbest": 1},
            }
        elif latents_given:
            kwargs = {"seq_gen_cls": LatentSequenceGenerator}
        return self.task.build_generator([self.model], settings, **kwargs)

    def _generate(
        self,
        generator: Any,
        sentences: Sequence[str],
        positions: list[list[int]] | None = None,
    ) -> list[list[str]]:
        """The hypotheses of each sentence, one a draw."""
        found: list[list[str]] = [[] for _ in sentences]
        for sample in self.batches(sentences, rows=max(1, MAX_ROWS // generator.beam_size)):
            numbers = sample["id"].tolist()
            if positions is not None:
                drawn_BT = torch.zeros_like(sample["net_input"]["src_tokens"], dtype=torch.bool)
                for row, number in enumerate(numbers):
                    drawn_BT[row, positions[number]] = True
                sample["latent_positions"] = drawn_BT
            decoded = self.task.inference_step(generator, [self.model], sample)
            for number, hypotheses in zip(numbers, decoded, strict=True):
                count = generator.latent_sampling.samples if _draws(generator) else 1
                found[number] = [self._text(hypothesis) for hypothesis in hypotheses[:count]]
        return found

    def _text(self, hypothesis: dict[str, Tensor]) -> str:
        tokens = hypothesis["tokens"].int().cpu()
        return self.remove_bpe(self.task.target_dictionary.string(tokens))


def _draws(generator: Any) -> bool:
    return isinstance(generator, VariationalSequenceGenerator)


def _sampling(samples: int, temperature: float, seed: int) -> LatentSampling:
    if samples < 1:
        raise VATError(f"--samples must be at least 1, not {samples}")
    _check_temperature(temperature)
    return LatentSampling(samples, temperature, seed)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise VATError(f"--temperature must be above 0, not {temperature}")


def _separate(latents: Any) -> list[Any]:
    """One array a sentence, out of what `encode` gives or a list of arrays."""
    if hasattr(latents, "mask"):
        return [mean[mask] for mean, mask in zip(latents.mean, latents.mask, strict=True)]
    return list(latents)


def _progress(total: int) -> tqdm:
    return tqdm(total=total, unit=" sentences", delay=1, leave=False, disable=None)
