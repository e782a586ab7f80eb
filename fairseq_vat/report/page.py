"""The page: its head, a table of contents, and the sections."""

from __future__ import annotations

from pathlib import Path
from string import Template

from fairseq_vat import __version__
from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.report import sections, sentences
from fairseq_vat.report.content import Content
from fairseq_vat.report.markup import Markup, element, join
from fairseq_vat.report.style import CSS

# more unknown pieces than this, and the subwords aren't the model's
_UNKNOWN = 0.2
# The policy is a promise that a browser keeps: nothing is loaded and nothing runs.
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header>
$header
</header>
<main>
$main
</main>
<footer>
$footer
</footer>
</body>
</html>
""")


def build(content: Content, checkpoint: str, records: list[Record] | None, log_note: str) -> str:
    """The whole page.

    Args:
        content: of `content.gather`.
        checkpoint: its path, as given.
        records: of the training's log; None if there is none.
        log_note: where the log is, or why there is none.
    """
    parts = [
        ("glance", "At a glance", sections.glance(content)),
        ("checkpoint", "The checkpoint", sections.checkpoint(content, checkpoint)),
        (
            "curves",
            "Learning curves",
            sections.learning_curves(content, records, log_note),
        ),
        ("dimensions", "Latent dimensions", sections.dimensions(content)),
        ("isotropy", "Isotropy", sections.isotropy(content)),
        ("map", "Map of sentences", sections.sentence_map(content)),
        ("reconstructions", "Reconstructions", sentences.reconstructions(content)),
        ("samples", "Samples", sentences.samples(content)),
        ("prior", "Samples from the prior", sentences.prior(content)),
        ("interpolations", "Interpolations", sentences.interpolations(content)),
    ]
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in parts]
    # the last folder tells runs apart, whose checkpoints all have one name
    path = Path(checkpoint)
    name = f"{path.parent.name}/{path.name}" if path.parent.name else path.name
    summary = (
        f"{content.architecture}, one latent for each {content.latent_level}, "
        f"{content.updates:,} updates"
    )
    header = join(
        element("p", "fairseq_vat report", class_="kicker"),
        element("h1", name),
        element("p", summary, class_="lead"),
        *(element("p", text, class_="warning", role="note") for text in _warnings(content)),
        element("nav", element("ol", *links), aria_label="Contents"),
    )
    main = [
        element("section", element("h2", title, id=f"{anchor}-title"), body, id=anchor,
                aria_labelledby=f"{anchor}-title")
        for anchor, title, body in parts
    ]  # fmt: skip
    settings = content.settings
    footer = element(
        "p",
        f"Written by fairseq-vat report {__version__}, with {settings.beam} beams and seed "
        f"{settings.seed}: the same command gives the same page. docs/measures.md of fairseq_vat "
        "defines each figure.",
    )
    return _PAGE.substitute(
        title=join(name, ": report"),
        css=Markup(CSS),
        header=header,
        main="\n".join(main),
        footer=footer,
    )


def _warnings(content: Content) -> list[Markup]:
    texts = []
    if content.warning:
        told, _, advice = content.warning.partition(": ")
        texts.append(
            join(element("strong", told[0].upper() + told[1:] + "."), " ",
                 advice[0].upper() + advice[1:] + ".")
        )  # fmt: skip
    unknown = content.corpus.unknown_share
    if unknown > _UNKNOWN:
        texts.append(
            join(
                element("strong", f"{unknown:.0%} of the text is unknown to the dictionary."),
                " It may be of other subwords than the model's: give their file, such as "
                "--sentencepiece-model.",
            )
        )
    return texts
