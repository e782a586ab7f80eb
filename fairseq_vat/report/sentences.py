"""The sections of a report that show sentences: reconstructions, samples, interpolations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fairseq_vat.report.content import Content, Example
from fairseq_vat.report.differences import differences, separator
from fairseq_vat.report.markup import Markup, element, join

_TAGS = {"new": "ins", "missing": "del"}


def reconstructions(content: Content) -> Markup:
    """Each example, and what is written from the means of its latents."""
    equal = sum(example.text == example.reconstruction for example in content.examples)
    return join(
        element(
            "p",
            f"Sentences of {content.corpus.source}, and what beam search writes from the means of "
            "their latents. Good: the same again. Words that are ",
            element("ins", "not in the sentence"),
            " are underlined, words ",
            element("del", "left out"),
            " struck through; where less than half is in common, only the new ones are marked. ",
            f"{equal} of {len(content.examples)} are equal, word for word.",
        ),
        *(_reconstruction(example) for example in content.examples),
    )


def _reconstruction(example: Example) -> Markup:
    equal = example.text == example.reconstruction
    return element(
        "article",
        element(
            "p",
            element("span", _number(example), " sentence"),
            element("span", "equal" if equal else "different"),
            class_="label",
        ),
        _text(example.text),
        element("p", "from the mean", class_="label"),
        element("p", marked(example.text, example.reconstruction), dir="auto"),
        class_="example",
        id=f"s{example.number}",
    )


def samples(content: Content) -> Markup:
    """Each example, and what is written from draws of its latents."""
    draws = [draw for example in content.examples for draw in example.samples]
    different = sum(len(set(example.samples)) for example in content.examples)
    equal = sum(draw == e.text for e in content.examples for draw in e.samples)
    each = content.settings.samples
    return join(
        element(
            "p",
            f"The same sentences, each written {each} times from latents drawn from its posterior. "
            "Good: variants that are sentences still, with some words exchanged. All equal: the "
            "posterior is too narrow, or the decoder doesn't listen to the latents. Nothing in "
            "common with the sentence: it is too wide, or has collapsed. "
            f"Of {len(draws)} draws {different} are distinct, and {equal} equal their sentence.",
        ),
        *(
            element(
                "article",
                element("p", element("span", _number(example), " sentence"), class_="label"),
                _text(example.text),
                element("p", "drawn", class_="label"),
                _draws(example),
                class_="example",
            )
            for example in content.examples
        ),
    )


def _draws(example: Example) -> Markup:
    return _list(example.samples, lambda draw: marked(example.text, draw))


def _list(lines: list[str], markup: Callable[[str], Markup]) -> Markup:
    """Lines as a list, equal ones once, with their number."""
    items = []
    for line, count in Counter(lines).items():
        times = element("small", f" \u00d7\u00a0{count}", class_="note") if count > 1 else None
        items.append(element("li", markup(line), times, dir="auto"))
    return element("ul", *items)


def prior(content: Content) -> Markup:
    """What is written from draws that no sentence is behind."""
    token_level = content.latent_level == "token"
    return join(
        element(
            "p",
            f"Written from latents drawn from the prior N(0, p\u00b2 I), p = "
            f"{content.settings.prior_std:g}, with no sentence behind them. Good: sentences, each "
            "another one. "
            + (
                "With a latent for every token, each drawn by itself, not much of a thread is to "
                "be expected: nothing in the prior ties a word to the next."
                if token_level
                else "All alike: the decoder doesn't listen to the latents. Broken ones, where "
                "reconstructions are whole: the prior has places that no sentence was put in."
            ),
        ),
        element("article", _list(content.prior, _or_empty), class_="example"),
    )


def interpolations(content: Content) -> Markup:
    """What lies between two examples."""
    steps = content.settings.steps
    return join(
        element(
            "p",
            f"From the latents of one sentence to those of another: {steps} points on the "
            "way, evenly spaced, each written out; the ends are the two reconstructions. Good: "
            "sentences all the way, that change from point to point. Words that the one above "
            "doesn't have are ",
            element("ins", "underlined"),
            ".",
        ),
        *(_way(first, second, way) for first, second, way in content.ways),
    )


def _way(first: int, second: int, way: list[str]) -> Markup:
    items = []
    for number, line in enumerate(way):
        before = way[number - 1] if number else line
        # the words of the step before would clutter: it stands right above
        text = marked(before, line, missing=False)
        share = number / (len(way) - 1)
        items.append(
            element(
                "li",
                element("span", f"{share:.0%}", class_="step"),
                element("span", text),
                dir="auto",
            )
        )
    links = [element("a", f"sentence {n}", href=f"#s{n}") for n in (first, second)]
    return element(
        "article",
        element("p", element("span", "from ", links[0], " to ", links[1]), class_="label"),
        element("ol", *items, class_="steps"),
        class_="example",
    )


def marked(before: str, after: str, missing: bool = True) -> Markup:
    """The second text with what differs from the first marked."""
    if not after:
        return _or_empty(after)
    space = separator(before, after)
    parts: list[object] = []
    for kind, text in differences(before, after):
        if kind == "missing" and not missing:
            continue
        if parts:
            parts.append(space)
        parts.append(element(_TAGS[kind], text) if kind in _TAGS else text)
    return join(*parts)


def _number(example: Example) -> Markup:
    return element("span", str(example.number), class_="number")


def _text(text: str) -> Markup:
    return element("p", text, dir="auto")


def _or_empty(text: str) -> Markup:
    return join(text) if text else element("i", "(an empty sentence)")
