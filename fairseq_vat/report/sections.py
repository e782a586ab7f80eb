"""The sections of a report that show figures: each says what it shows and what is good."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.measures.active_units import THRESHOLD
from fairseq_vat.report import figures
from fairseq_vat.report.content import Content
from fairseq_vat.report.markup import Markup, element, join, table


def glance(content: Content) -> Markup:
    """The figures that say most, as cards."""
    found, examples = content.figures, content.examples
    mean, draws, mi = found["nll_mean"], found["nll_samples"], found["mi"]
    equal = sum(example.text == example.reconstruction for example in examples)
    cards = [
        (
            "Reconstruction from the mean",
            f"{mean['bits_per_token']:.2f} bits",
            f"a token; perplexity {_perplexity(mean)}, at best 1",
        ),
        (
            "Reconstruction from draws",
            f"{draws['bits_per_token']:.2f} bits",
            f"a token; perplexity {_perplexity(draws)}",
        ),
        (
            "KL",
            f"{found['kl_nats']:.2f} nats",
            f"a latent; near 0 the {content.latent_level}s' latents go unused",
        ),
        (
            "Mutual information",
            f"{mi['paired']:.2f} ± {mi['paired_std']:.2f} nats",
            f"of at most log N = {mi['ceiling']:.2f}, over {mi['latents']:,} latents",
        ),
        (
            "Active units",
            f"{found['active_units']['count']} of {found['active_units']['of']}",
            "dimensions whose mean moves with the text",
        ),
        (
            "Given back word for word",
            f"{equal} of {len(examples)}",
            "examples below, from the mean",
        ),
    ]
    if content.isotropy and content.isotropy["latents"]["random_cosine"] is not None:
        cosine = content.isotropy["latents"]["random_cosine"]
        what = "tokens" if content.latent_level == "token" else "sentences"
        cards.append(
            (f"Cosine of random {what}", f"{cosine:.3f}", "of their latents; near 0 is isotropic")
        )
    corpus = content.corpus
    sentences = len(corpus.texts)
    chosen = f"{sentences:,} sentences of {corpus.source}"
    if sentences < corpus.total:
        chosen += f", evenly spaced among its {corpus.total:,}"
    if corpus.too_long:
        chosen += f" ({corpus.too_long:,} more were longer than the model's positions)"
    return join(
        element("p", f"Measured on {chosen}.", class_="lead"),
        element(
            "dl",
            *(
                element("div", element("dt", name), element("dd", value, element("small", text)))
                for name, value, text in cards
            ),
            class_="cards",
        ),
    )


def checkpoint(content: Content, path: str) -> Markup:
    """What was trained, and how."""
    facts = {"File": path, **content.facts}
    pairs = [join(element("dt", name), element("dd", text)) for name, text in facts.items()]
    return element("dl", *pairs, class_="facts")


def learning_curves(content: Content, records: list[Record] | None, note: str) -> Markup:
    """The curves of the log, or why there are none."""
    if records is None:
        return element("p", note, class_="note")
    pictures = figures.learning_curves(records, content.updates)
    last = max(record.num_updates for record in records)
    goes_on = (
        f" The dotted line is this checkpoint, {content.updates:,} updates; the log goes on to "
        f"{last:,}."
        if 0 < content.updates < last
        else ""
    )
    return _figure(
        pictures,
        "How well sentences are written again, what their latents cost, and the weight on that "
        "cost. Good: reconstruction ends low, with validation (orange) no worse than training, and "
        "the KL stays above 0 after the weight has risen. A KL that goes to 0 as the weight rises, "
        "while reconstruction gets worse, is a collapse." + goes_on,
        element("p", note, class_="note"),
    )


def dimensions(content: Content) -> Markup:
    """KL of each dimension, and which are active."""
    found = content.figures
    active, scaled = found["active_units"], found["active_units_scaled"]
    pictures = [
        figures.kl_per_dimension(content.kl_L, content.variance_L >= THRESHOLD),
        figures.variance_per_dimension(content.variance_L, content.kl_L, THRESHOLD),
    ]
    ordered = content.kl_L.sort(descending=True).values
    half = int((ordered.cumsum(0) < 0.5 * ordered.sum()).sum()) + 1
    return _figure(
        pictures,
        f"What each of the {len(content.kl_L)} dimensions of a latent tells, and how much its "
        "mean moves over the text. Blue dimensions are active, grey ones idle: "
        f"{active['count']} have a variance of at least {THRESHOLD:g}, the line in the second "
        f"picture; {scaled['count']} reach 0.01 s\u00b2 = {scaled['threshold']:.3g}. Half of the "
        f"KL is in the first {half}. "
        "Good: many active dimensions that fall off slowly. A few that hold all of it are a small "
        "latent in a large one; none is a collapse.",
    )


def isotropy(content: Content) -> Markup:
    """The measures of each layer and of the latents."""
    found = content.isotropy
    if found is None:
        return element("p", f"Not measured: {content.isotropy_error}", class_="note")
    rows = [*found["layers"], {"layer": "z", **found["latents"]}]
    body = [[row["layer"], *(_number(row[name]) for name in figures.MEASURES)] for row in rows]
    head = ["layer", "random cosine", "self-simi\u00adlarity", "intra-sentence", "Iso\u00adScore"]
    likeness = (
        "Likeness of tokens by encoder layer (0: the embeddings) and of the latents' means (z). "
        "Random tokens should be unlike: a cosine near 0 is isotropic. A word in other sentences "
        "should be like itself but not the same (self-similarity), and a sentence's words should "
        "share something without becoming one (intra-sentence similarity): 1 is a collapse. "
        "IsoScore is 1 where every direction is used alike."
    )
    if content.latent_level == "sentence":
        likeness += " One latent a sentence has neither self- nor intra-sentence similarity."
    return join(
        _figure(figures.isotropy(rows), likeness),
        table(head, body, f"The same as figures, over {found['sentences']:,} sentences."),
        _words(content),
    )


def _words(content: Content) -> Markup | None:
    words = content.isotropy["words"]
    if not words:
        return None
    texts: list[object] = []
    for word in words:
        texts += [", " if texts else "", element("code", _spelling(content, word["word"]))]
        texts.append(f" {word['self_similarity']:.2f}")
    return element(
        "p",
        "The words least like themselves in other sentences, and so most shaped by them "
        f"(self-similarity, {content.isotropy['words_of']}): ",
        *texts,
        ".",
    )


def _spelling(content: Content, piece: str) -> str:
    """An entry of the dictionary for readers, with sentencepiece's mark where a word begins."""
    text = content.corpus.join(piece)
    starts = piece.startswith("\u2581") or text.startswith(" ")
    return ("\u2581" if starts else "") + text.strip() if text.strip() else piece


def sentence_map(content: Content) -> Markup:
    """Sentence embeddings in the plane, and what lies at its ends."""
    coordinates, explained = content.map
    texts = content.corpus.texts
    numbered = {example.row: example.number for example in content.examples}
    pooled = (
        "the mean of its latents' means" if content.latent_level == "token" else "its latent's mean"
    )
    picture = figures.sentence_map(coordinates, explained, texts, numbered)
    ends = []
    for axis, name in enumerate(("first", "second")):
        order = coordinates[:, axis].argsort()
        for end, row in (("low", order[0]), ("high", order[-1])):
            ends.append(
                join(element("dt", f"{name}, {end}"), element("dd", texts[int(row)], dir="auto"))
            )
    return join(
        element(
            "figure",
            picture,
            element(
                "figcaption",
                f"Every point is a sentence, {pooled}, on the two principal components that hold "
                f"{float(explained.sum()):.1%} of the variance. Pointing at one with a mouse "
                "shows its sentence; the numbered ones are the examples below. Good: neighbours "
                "are alike in what they say, and colours are mixed: where they run along an axis, "
                "it is mostly the sentence's length. Correlation of the components with the number "
                "of words: "
                f"{_with_length(coordinates, texts)}.",
            ),
            class_="map",
        ),
        element("h3", "At the ends of the two components"),
        element("dl", *ends, class_="facts"),
    )


def _with_length(coordinates_N2: Tensor, texts: list[str]) -> str:
    """Pearson's correlation of each component with the number of words."""
    words_N = torch.tensor([len(text.split()) for text in texts], dtype=torch.float64)
    rows = torch.stack([*coordinates_N2.t(), words_N])
    found = torch.corrcoef(rows)[-1, :2].tolist()
    return " and ".join("undefined" if r != r else f"{r:.2f}" for r in found)


def _figure(pictures: list[Markup], caption: str, *more: object) -> Markup:
    return element(
        "figure",
        element("div", *pictures, class_="pictures"),
        element("figcaption", caption, *more),
    )


def _perplexity(spread: dict[str, Any]) -> str:
    value = spread["ppl_per_token"]
    return "beyond measure" if value is None else f"{value:,.2f}" if value < 1e4 else f"{value:.1e}"


def _number(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.3f}"
