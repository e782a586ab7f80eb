"""Operations in latent space: the generating half of the hub interface.

Shape legend: N sentences, P latents of a sentence (its source positions at token level, 1 at
sentence level), B sentences of a batch, L latent width, K draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq import utils
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.hub.decoding import LatentDecoding
from fairseq_vat.hub.loading import prior_of
from fairseq_vat.latent import interpolation, noise
from fairseq_vat.latent.prior import check_temperature
from fairseq_vat.tasks.data_directory import load_sentences
from fairseq_vat.tasks.generation import LatentSampling
from fairseq_vat.text.lines import clean_line
from fairseq_vat.text.marks import marked_subwords, parse_marks, read_marked


class LatentOperations(LatentDecoding):
    """Operations in latent space, for `VATHubInterface`; its methods take and give lists.

    Every method takes fairseq's generation settings as keywords: ``beam`` (5, the VAT paper's; 1
    with ``sampling``), ``lenpen=...``, ``max_len_b=...``, ``sampling=True, sampling_topk=10`` and
    so on. Draws have a ``temperature``, a factor on the standard deviation, and a ``seed``, which
    fixes them together with the sentence and the draw's number. An empty sentence gives an empty
    one, but where its one latent is moved, which is decoded as any other. The result for a sentence
    doesn't depend on the others, but for the rounding of sums, with two exceptions, both fairseq's:
    ``sampling`` draws tokens from torch's global generator, and ``max_len_a`` is a factor on the
    batch's longest source.

    Every method raises TypeError for a setting that fairseq's generation doesn't have, or that
    makes no difference to one sentence, such as ``nbest``, and where one string is given instead of
    a list; VATError for a setting out of range, for another ``pooling`` of a sentence's latents
    than ``mean``, ``sum`` and ``start``, and for ``start`` of a model without start tokens;
    ValueError for lists of different lengths.
    """

    def reconstruct(
        self, sentences: Sequence[str], beam: int | None = None, **generation: Any
    ) -> list[str]:
        """The sentences, decoded from the means of their latents."""
        generator = self._generator(beam, generation)
        return [found[0] for found in self._generate(generator, sentences)]

    def sample(
        self,
        sentences: Sequence[str],
        samples: int = 4,
        temperature: float = 1.0,
        seed: int = 1,
        beam: int | None = None,
        **generation: Any,
    ) -> list[list[str]]:
        """Variants of each sentence: decoded from draws of its posterior (VAT paper, table 1).

        Raises:
            VATError: for fewer than one draw, and a temperature that isn't above 0.
        """
        sampling = _sampling(samples, temperature, seed)
        return self._generate(self._generator(beam, generation, sampling), sentences)

    def vary(
        self,
        marked: Sequence[str],
        samples: int = 8,
        temperature: float = 1.0,
        seed: int = 1,
        beam: int | None = None,
        marks: str = "[]",
        **generation: Any,
    ) -> list[list[str]]:
        """Variants of the marked words: only their latents are drawn (VAT paper, table 2).

        Args:
            marked: sentences with marks around words, or parts of words, as in ``a [great]
                success``; ``\\[`` is a bracket that is text.

        Raises:
            VATError: for a sentence without marks, or with marks that don't pair, for marked words
                beyond the model's positions or without a subword, and for a model with one latent
                a sentence.
        """
        sampling = _sampling(samples, temperature, seed)
        sentences, positions = self.read_marked(marked, marks)
        generator = self._generator(beam, generation, sampling)
        return self._generate(generator, sentences, positions)

    def read_marked(
        self, marked: Sequence[str], marks: str = "[]"
    ) -> tuple[list[str], list[list[int]]]:
        """The sentences without marks, and the source positions of what was marked in each."""
        if isinstance(marked, str):
            raise TypeError("a list of sentences is needed, not one string")
        if self.model.encoder.latent_level != "token":
            raise VATError(
                "a word can't be varied alone: the model has one latent for a whole sentence; "
                "take a model with --latent-level token, or sample"
            )
        opening_closing = parse_marks(marks)
        sentences, positions = [], []
        first = int(self.task.start_token)
        room = self.task.room + first
        for text in marked:
            found = read_marked(clean_line(text), opening_closing)
            if not found.spans:
                opening, closing = opening_closing
                raise VATError(
                    f"{text!r}: no word is marked; put {opening} and {closing} around what is to "
                    "be varied"
                )
            numbers = marked_subwords(found, self.apply_bpe, self.remove_bpe)
            if not numbers:
                raise VATError(f"{text!r}: no subword has anything of what is marked in it")
            if numbers[-1] + first >= room - 1:
                raise VATError(
                    f"{text!r}: a marked word is subword {numbers[-1] + 1}, and the model reads "
                    f"the first {room - 1 - first} only"
                )
            sentences.append(clean_line(found.sentence))  # spaces may meet where a mark was
            positions.append([number + first for number in numbers])
        return sentences, positions

    def interpolate(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        steps: int = 5,
        method: str = "linear",
        beam: int | None = None,
        **generation: Any,
    ) -> list[list[str]]:
        """Sentences between one and another, both included (VAT paper, table 3).

        Args:
            steps: sentences of each pair, the two's reconstructions with them; the paper has 5.
            method: ``linear`` or ``spherical``: see `fairseq_vat.latent.interpolation`, also for
                what pads the shorter sentence.

        Raises:
            VATError: for fewer than 2 steps, and another method.
        """
        if isinstance(firsts, str) or isinstance(seconds, str):
            raise TypeError("lists of sentences are needed, not one string")
        if len(firsts) != len(seconds):
            raise ValueError(f"{len(firsts)} sentences and {len(seconds)} to go to")
        latents = [posterior.mean for posterior in self.posteriors([*firsts, *seconds])]
        paths = [
            interpolation.interpolate(latents[number], latents[len(firsts) + number], steps, method)
            for number in range(len(firsts))
        ]
        decoded = self.decode([point for path in paths for point in path], beam, **generation)
        return [decoded[first : first + steps] for first in range(0, len(decoded), steps)]

    def arithmetic(
        self,
        a: Sequence[str],
        b: Sequence[str],
        c: Sequence[str],
        pooling: str = "mean",
        beam: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """a - b + c, decoded: what b is to a, to c.

        With one latent a sentence it is z(a) - z(b) + z(c). With a latent for every token, a's
        latents are each shifted by the difference of the pooled latents of c and b: a keeps its
        length and its words' order.
        """
        if not len(a) == len(b) == len(c):
            raise ValueError(f"{len(a)}, {len(b)} and {len(c)} sentences: as many of each, please")
        shift_NL = torch.from_numpy(self.embed(c, pooling) - self.embed(b, pooling))
        pairs = zip(self.posteriors(a), shift_NL, strict=True)
        return self.decode([x.mean + shift for x, shift in pairs], beam, **generation)

    def direction(
        self, source: Sequence[str], target: Sequence[str], pooling: str = "mean"
    ) -> np.ndarray:
        """From sentences with one attribute to sentences with another, (L,).

        The mean of the target's pooled latents minus the mean of the source's, each sentence
        counting the same, in double precision: an attribute vector (Larsen et al. 2016,
        Autoencoding beyond pixels).
        """
        if not len(source) or not len(target):
            raise VATError("a direction needs a sentence of each attribute at least")
        means = [self.embed(lines, pooling).mean(0, dtype=float) for lines in (source, target)]
        return means[1] - means[0]

    def shift(
        self,
        sentences: Sequence[str],
        direction: np.ndarray | Tensor,
        scale: float = 1.0,
        beam: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Sentences moved along a direction, decoded.

        ``scale * direction``, the other way below 0, is added to every latent of a sentence: with a
        latent for every token to each of them, so that their mean moves by it and the sentence
        keeps its length and its words' order.

        Raises:
            VATError: for a direction of another shape, or with values that aren't finite.
        """
        step_L = scale * torch.as_tensor(direction).float()
        width = self.model.encoder.latent_dim
        if step_L.shape != (width,):
            shape = tuple(step_L.shape)
            raise VATError(f"a direction of shape {shape}: the model needs ({width},)")
        points = [x.mean + step_L for x in self.posteriors(sentences)]
        return self.decode(points, beam, **generation)

    def sample_prior(
        self,
        count: int,
        length: int | None = None,
        prior_std: float | None = None,
        temperature: float = 1.0,
        seed: int = 1,
        beam: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Sentences decoded from latents drawn from their prior N(0, p^2 I).

        Args:
            length: subwords of a sentence, without start token and end of sentence; None draws
                lengths from those of the training data: the checkpoint's, or the data directory's.
                Without meaning where a sentence has one latent.
            prior_std: p; None takes the training's: s, or s^2 with noise of the prior's width.
            seed: with the draw's number it fixes a draw.

        Raises:
            VATError: for numbers out of range, and if lengths can't be drawn for want of the
                training data.
        """
        check_temperature(temperature)
        if count < 1:
            raise VATError(f"{count} samples: give at least 1")
        prior = prior_of(self.cfg, self.model, prior_std)
        keys_B, width = torch.arange(count), self.model.encoder.latent_dim
        points = [
            prior.sample(noise.normal(key_1, positions, width, seed)[:, 0], temperature)
            for key_1, positions in zip(
                keys_B.split(1), self._prior_lengths(count, length, seed), strict=True
            )
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
        room = self.task.room + int(self.task.start_token)
        extra = 1 + int(self.task.start_token)
        if length is not None:
            if not 1 <= length <= room - extra:
                raise VATError(
                    f"--length {length}: must be from 1 to {room - extra}, the model's positions"
                )
            return [length + extra] * count
        generator = np.random.default_rng(seed % 2**64)  # numpy takes no negative seed
        drawn = generator.random(count)  # number n doesn't depend on the count
        if self.cfg.task.data:
            path = f"{utils.split_paths(self.cfg.task.data)[0]}/{self.task.cfg.train_subset}"
            sentences = load_sentences(path, self.task.source_dictionary)
            if sentences is None or len(sentences) == 0:
                raise VATError(
                    f"no {path}.bin and .idx to draw lengths from: give a length, or the data "
                    "directory of the training"
                )
            sizes = np.asarray(sentences.sizes)[(drawn * len(sentences)).astype(int)]
        else:  # the checkpoint has them
            ends = self.task.training_lengths.cumsum(0).numpy()
            sizes = np.searchsorted(ends, drawn * ends[-1], side="right")
        return np.minimum(sizes + extra - 1, room).tolist()


def _sampling(samples: int, temperature: float, seed: int) -> LatentSampling:
    if samples < 1:
        raise VATError(f"--samples must be at least 1, not {samples}")
    check_temperature(temperature)
    return LatentSampling(samples, temperature, seed)
