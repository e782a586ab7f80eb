"""The page: what was gathered, put into ``report.html.j2``."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fairseq_vat import __version__
from fairseq_vat.evaluation.texts import MOST_UNKNOWN
from fairseq_vat.evaluation.training_log import Record
from fairseq_vat.measures.active_units import THRESHOLD
from fairseq_vat.report import figures
from fairseq_vat.report.differences import differences, separator

_TAGS = {"same": Markup("{}"), "new": Markup("<ins>{}</ins>"), "missing": Markup("<del>{}</del>")}


def build(
    report: SimpleNamespace, checkpoint: str, records: list[Record] | None, log_note: str
) -> str:
    """The whole page.

    Args:
        records: of the training's log; None if there is none.
        log_note: where the log is, or why there is none.
    """
    environment = Environment(
        loader=PackageLoader("fairseq_vat", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thousands": "{:,}".format,
        "perplexity": _perplexity,
        "marked": marked,
        "counted": lambda lines: Counter(lines).items(),
    }
    path, examples = Path(checkpoint), report.examples
    ordered_L = report.kl_L.sort(descending=True).values
    return environment.get_template("report.html.j2").render(
        report=report,
        sentences=report.sentences,
        measures=report.measures,
        settings=report.settings,
        token_level=report.latent_level == "token",
        version=__version__,
        checkpoint=checkpoint,
        # the last folder tells runs apart, whose checkpoints all have one name
        name=f"{path.parent.name}/{path.name}" if path.parent.name else path.name,
        unknown_limit=MOST_UNKNOWN,
        curves=None if records is None else figures.learning_curves(records, report.updates),
        log_note=log_note,
        last_update=max((record.num_updates for record in records or ()), default=0),
        dimensions=[
            figures.kl_per_dimension(report.kl_L, report.variance_L >= THRESHOLD),
            figures.variance_per_dimension(report.variance_L, report.kl_L, THRESHOLD),
        ],
        half_of_kl=int((ordered_L.cumsum(0) < 0.5 * ordered_L.sum()).sum()) + 1,
        isotropy=_isotropy(report),
        map=_map(report),
        equal_examples=sum(e.text == e.reconstruction for e in examples),
        distinct_samples=sum(len(set(e.samples)) for e in examples),
        equal_samples=sum(sample == e.text for e in examples for sample in e.samples),
    )


def _isotropy(report: SimpleNamespace) -> dict[str, Any] | None:
    """What the section shows beside the figures."""
    if report.isotropy is None:
        return None
    rows = [*report.isotropy["layers"], {"layer": "z", **report.isotropy["latents"]}]
    words = report.isotropy["words"]
    return {
        "rows": [(row["layer"], [row[name] for name in figures.MEASURES]) for row in rows],
        "figures": figures.isotropy(rows),
        "words": [(_spelling(report, word["word"]), word["self_similarity"]) for word in words],
    }


def _spelling(report: SimpleNamespace, piece: str) -> str:
    """An entry of the dictionary for readers, with sentencepiece's mark where a word begins."""
    text = report.sentences.join(piece)
    starts = piece.startswith("\u2581") or text.startswith(" ")
    return ("\u2581" if starts else "") + text.strip() if text.strip() else piece


def _map(report: SimpleNamespace) -> dict[str, Any]:
    """What the section shows."""
    coordinates_N2, texts = report.coordinates_N2, report.sentences.texts
    words_N = [len(text.split()) for text in texts]
    with np.errstate(invalid="ignore"):  # of values that are all equal
        correlations = np.corrcoef(coordinates_N2.T, words_N)[2, :2]
    return {
        "figure": figures.sentence_map(
            coordinates_N2, report.explained_2, texts, {e.row: e.number for e in report.examples}
        ),
        "correlations": ["undefined" if np.isnan(r) else f"{r:.2f}" for r in correlations],
        "ends": [
            (f"{name}, {end}", texts[row])
            for name, column in zip(("first", "second"), coordinates_N2.T, strict=True)
            for end, row in (("low", column.argmin()), ("high", column.argmax()))
        ],
    }


def _perplexity(value: float | None) -> str:
    return "beyond measure" if value is None else f"{value:,.2f}" if value < 1e4 else f"{value:.1e}"


def marked(after: str, before: str, missing: bool = True) -> Markup:
    """The first text with what differs from the second marked."""
    if not after:
        return Markup("<i>(an empty sentence)</i>")
    return Markup(separator(before, after)).join(
        _TAGS[kind].format(text)
        for kind, text in differences(before, after)
        if missing or kind != "missing"
    )
