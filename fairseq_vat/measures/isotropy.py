"""How representations fill their space, and how much of a token's is its context's.

The measures of Ethayarajh (2019), "How Contextual are Contextualized Word Representations?", plain
as the VAT paper has them (figure 3a, footnote 2: not adjusted for isotropy), and IsoScore (Rudman
et al. 2022, "IsoScore: Measuring the Uniformity of Embedding Space Utilization").  Each is exact
over all its pairs and follows from sums, so that representations can come in batches and needn't be
kept.

A zero vector has no direction, and one that isn't finite none either: `unit_vectors` refuses both.
A measure without anything to average is None: the mean cosine of fewer than two vectors,
self-similarity where no type is in two sentences, intra-sentence similarity without a sentence,
IsoScore of vectors that have one dimension or are equal to about a hundred-thousandth.

Shape legend: N tokens, C width, V types, G sentences, M (type, sentence) pairs that occur; of a
batch, B sentences and T source positions.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.latent import noise

# square of the share of the second moments under which a covariance is taken for rounding: of
# 100,000 equal vectors 768 wide it is 2e-24, of a spread of 1e-5 of their length about 1e-22
_NOTHING = 1e-22


def words_of(tokens_BT: Tensor, dictionary: Any) -> Tensor:
    """Which tokens are words, (B, T): all but padding, start token and end of sentence."""
    others = (dictionary.pad(), dictionary.bos(), dictionary.eos())
    return torch.stack([tokens_BT.ne(symbol) for symbol in others]).all(dim=0)


def random_words(tokens_BT: Tensor, dictionary: Any, seed: int) -> Tensor:
    """One word of each sentence that has one, (B, T).

    The lot is a hash of the seed and the sentence's tokens: it falls the same whatever the sentence
    is batched with, and on whichever process.
    """
    word_BT = words_of(tokens_BT, dictionary)
    keys_B = noise.sentence_keys(tokens_BT, dictionary.pad())
    lots_BT = noise.normal(keys_B, tokens_BT.size(1), 1, seed)[:, :, 0].t()
    chosen_B = lots_BT.masked_fill(~word_BT, -torch.inf).argmax(dim=1)
    chosen_BT = torch.zeros_like(word_BT).scatter_(1, chosen_B.unsqueeze(1), True)
    return chosen_BT & word_BT


def unit_vectors(vectors_NC: Tensor) -> Tensor:
    """The vectors at length 1, (N, C) in double precision.

    Raises:
        VATError: for vectors that are zero or not finite: their cosine with others is undefined.
    """
    vectors_NC = vectors_NC.double()
    lengths_N = vectors_NC.norm(dim=1)
    wrong = int((~((lengths_N > 0) & lengths_N.isfinite())).sum())
    if wrong:
        raise VATError(
            f"{wrong:,} of {len(lengths_N):,} representations are zero or not finite, and so have "
            "no cosine: is the model trained, and did its training stay finite?"
        )
    return vectors_NC / lengths_N.unsqueeze(1)


def mean_cosine(count: int, unit_sum_C: Tensor) -> float | None:
    """Mean cosine over all pairs of different vectors, from the sum of the unit vectors.

    |sum_i u_i|^2 is the sum of all cosines, of which `count` are those of a vector with itself.

    Args:
        unit_sum_C: sum of the vectors at length 1, (C,), in double precision.

    Returns:
        -1 / (count - 1) to 1; None for fewer than two vectors.
    """
    if count < 2:
        return None
    return (float(unit_sum_C @ unit_sum_C) - count) / (count * (count - 1))


def iso_score_of_covariance(covariance_CC: Tensor) -> float | None:
    """IsoScore of a distribution with this covariance: 0 for one direction, 1 for all alike.

    Rudman et al. (2022), algorithm 1: with lambda the variances along the principal components,
    scaled to length sqrt(C), the defect d = |lambda - 1| / sqrt(2 (C - sqrt C)) gives the share
    of dimensions in use, phi = (C - d^2 (C - sqrt C))^2 / C^2, and IsoScore is
    (C phi - 1) / (C - 1).  Since |lambda|^2 = C, what is squared in phi is the sum of lambda, which
    is sqrt(C) trace / |covariance|.  So C phi = trace^2 / |covariance|^2 (Frobenius norm), and no
    principal component has to be found.

    Returns:
        None for a covariance of 0, or of one dimension.
    """
    width = covariance_CC.size(0)
    square = float(covariance_CC.square().sum())
    if width < 2 or square == 0:
        return None
    used = float(covariance_CC.trace()) ** 2 / square
    return min(max((used - 1) / (width - 1), 0.0), 1.0)


def iso_score(count: int, sum_C: Tensor, product_CC: Tensor) -> float | None:
    """IsoScore of vectors from their sums; at most (count - 2) / (C - 1) of few vectors.

    Args:
        sum_C: sum of the vectors, (C,), in double precision.
        product_CC: sum of their outer products with themselves, (C, C).
    """
    if count < 2:
        return None
    covariance_CC = product_CC - sum_C.outer(sum_C) / count  # count times it: IsoScore has no scale
    if covariance_CC.square().sum() <= _NOTHING * product_CC.square().sum():
        return None  # all vectors are equal
    return iso_score_of_covariance(covariance_CC)


def intra_sentence_similarity(vectors_NC: Tensor, sentences_N: Tensor) -> Tensor:
    """Mean cosine of each sentence's tokens to the mean of their vectors, (G,).

    Of n vectors at right angles it is 1 / sqrt(n), and 1 of a single one: each is part of the mean.

    Args:
        sentences_N: number of each token's sentence; any integers.

    Raises:
        VATError: as `unit_vectors`, and where a sentence's mean is the zero vector.
    """
    numbers_G, sentence_N = sentences_N.unique(return_inverse=True)
    mean_GC = _sum_by(sentence_N, len(numbers_G), vectors_NC.double())
    cosines_N = (unit_vectors(vectors_NC) * unit_vectors(mean_GC)[sentence_N]).sum(dim=1)
    return _sum_by(sentence_N, len(numbers_G), cosines_N) / sentence_N.bincount()


class TypeSimilarity(NamedTuple):
    """Self-similarity of the V types in two sentences or more, in order of their number."""

    types: Tensor
    similarity: Tensor  # (V,), mean cosine over pairs of occurrences in different sentences
    occurrences: Tensor  # (V,), tokens of the type
    sentences: Tensor  # (V,), how many have it

    def mean(self) -> float | None:
        """Averaged over types; None without one."""
        return float(self.similarity.mean()) if len(self.types) else None


class SelfSimilaritySums:
    """Sums from which self-similarity follows; memory grows with the types seen, times C.

    Over all pairs of a type's occurrences the cosines add up to |sum u|^2; the sums of the same
    kind within each sentence are taken away, which leaves the pairs from different sentences.
    """

    def __init__(self) -> None:
        self._row_of: dict[int, int] = {}
        # columns: tokens, sentences, sum over sentences of tokens^2 and of |sum of unit vectors|^2
        self._figures_V4 = torch.zeros(0, 4, dtype=torch.float64)
        self._units_VC: Tensor | None = None

    def add(self, units_NC: Tensor, types_N: Tensor, sentences_N: Tensor) -> None:
        """Add all tokens of some sentences; no sentence may come in two calls.

        Args:
            units_NC: representations at length 1.
            types_N: number of each token's type; below 0 leaves the token out.
            sentences_N: number of its sentence, any integers.
        """
        keep_N = types_N >= 0
        pairs_N2 = torch.stack((types_N[keep_N], sentences_N[keep_N]), dim=1)
        pairs_M2, pair_N, tokens_M = pairs_N2.unique(dim=0, return_inverse=True, return_counts=True)
        unit_sums_MC = _sum_by(pair_N, len(pairs_M2), units_NC[keep_N])
        tokens_M = tokens_M.double()
        squares_M = unit_sums_MC.square().sum(dim=1)
        figures_M4 = torch.stack(
            (tokens_M, torch.ones_like(tokens_M), tokens_M.square(), squares_M), dim=1
        )
        rows_M = self._rows(pairs_M2[:, 0], units_NC.size(1))
        self._figures_V4.index_add_(0, rows_M, figures_M4)
        self._units_VC.index_add_(0, rows_M, unit_sums_MC)

    def _rows(self, types_M: Tensor, width: int) -> Tensor:
        """Where the types' sums are; what isn't there yet gets a row."""
        row_of = self._row_of
        rows_M = torch.tensor([row_of.setdefault(t, len(row_of)) for t in types_M.tolist()])
        if self._units_VC is None:
            self._units_VC = self._figures_V4.new_zeros(0, width)
        if len(row_of) > len(self._figures_V4):  # twice as many, so that few copies are made
            more = 2 * len(row_of) - len(self._figures_V4)
            room_V4, room_VC = (x.new_zeros(more, x.size(1)) for x in self._sums())
            self._figures_V4 = torch.cat((self._figures_V4, room_V4))
            self._units_VC = torch.cat((self._units_VC, room_VC))
        return rows_M.long()

    def _sums(self) -> tuple[Tensor, Tensor]:
        return self._figures_V4, self._units_VC

    def result(self) -> TypeSimilarity:
        """The types in two sentences or more."""
        types_V = torch.tensor(list(self._row_of), dtype=torch.int64)
        if self._units_VC is None:
            return TypeSimilarity(types_V, types_V.double(), types_V, types_V)
        figures_V4, units_VC = (x[: len(types_V)] for x in self._sums())
        tokens_V, sentences_V, squares_V, within_V = figures_V4.unbind(dim=1)
        pairs_V = tokens_V.square() - squares_V
        similarity_V = (units_VC.square().sum(dim=1) - within_V) / pairs_V
        order = types_V.argsort()
        order = order[sentences_V[order] > 1]
        return TypeSimilarity(
            types_V[order], similarity_V[order], tokens_V[order].long(), sentences_V[order].long()
        )


class IsotropySums:
    """All four measures of one layer's representations, which come in batches of sentences."""

    def __init__(self, width: int):
        self.types = SelfSimilaritySums()
        self._units_C = torch.zeros(width, dtype=torch.float64)
        self._sum_C = torch.zeros_like(self._units_C)
        self._product_CC = torch.zeros(width, width, dtype=torch.float64)
        self._random = self._tokens = self._sentences = 0
        self._intra = 0.0

    def add(
        self,
        vectors_NC: Tensor,
        random_N: Tensor,
        types_N: Tensor | None = None,
        sentences_N: Tensor | None = None,
    ) -> None:
        """Add sentences whole.

        Args:
            vectors_NC: on the CPU.
            random_N: true for the random tokens, whose mean cosine is taken.
            types_N: as for `SelfSimilaritySums.add`; None, with `sentences_N`, where
                representations aren't tokens': they then have neither self- nor intra-sentence
                similarity.
            sentences_N: number of each token's sentence.
        """
        if len(vectors_NC) == 0:
            return
        vectors_NC = vectors_NC.double()
        units_NC = unit_vectors(vectors_NC)
        self._units_C += units_NC[random_N].sum(dim=0)
        self._random += int(random_N.sum())
        self._sum_C += vectors_NC.sum(dim=0)
        self._product_CC += vectors_NC.t() @ vectors_NC
        self._tokens += len(vectors_NC)
        if types_N is not None:
            self.types.add(units_NC, types_N, sentences_N)
            cosines_G = intra_sentence_similarity(vectors_NC, sentences_N)
            self._intra += float(cosines_G.sum())
            self._sentences += len(cosines_G)

    def result(self) -> dict[str, float | None]:
        """``random_cosine``, ``self_similarity``, ``intra_sentence_similarity``, ``iso_score``."""
        return {
            "random_cosine": mean_cosine(self._random, self._units_C),
            "self_similarity": self.types.result().mean(),
            "intra_sentence_similarity": self._intra / self._sentences if self._sentences else None,
            "iso_score": iso_score(self._tokens, self._sum_C, self._product_CC),
        }


def _sum_by(group_N: Tensor, groups: int, values_N: Tensor) -> Tensor:
    """Values summed by the number of their group, (groups, ...)."""
    sums = torch.zeros(groups, *values_N.shape[1:], dtype=values_N.dtype, device=values_N.device)
    return sums.index_add_(0, group_N, values_N)
