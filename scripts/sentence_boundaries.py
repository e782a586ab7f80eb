"""English prose into sentences, by rule."""

from __future__ import annotations

import re

from fairseq_vat.text.lines import clean_line

# Character classes: quotes and brackets that may stand before a sentence and after its stop.
OPENING = "[\"'\u2018\u201c(\\[]"
CLOSING = "[\"'\u2019\u201d)\\]]"

_BOUNDARY = re.compile(rf"(?P<stop>[.!?…]+)(?P<close>{CLOSING}*)\s+(?={OPENING}*(?P<next>\w+))")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Always followed by a name, so never the end of a sentence.
_TITLES = _words(
    "Mr Mrs Ms Messrs Dr Prof Rev Rt Hon St Gen Sen Rep Gov Lt Col Maj Sgt Capt Cmdr Adm Pres "
    "Mt Ft vs v e.g i.e cf viz"
)
# Followed by a number where they are abbreviations ("No. 5"), by anything where they are words.
_BEFORE_NUMBERS = _words(
    "No Nos no nos Fig Figs fig Vol vol Ch ch Sec Art para paras p pp "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
)
# Within a sentence or at its end: only the next word can tell ("Inc. The ..." and "Inc. chief").
_EITHER = _words("Inc Ltd Co Corp Bros Plc plc Jr Sr etc al approx est dept Dept")
_STARTERS = _words(
    "A An And As At Both But By Despite Earlier Even For From He Her His However I If In It Its "
    "Last Meanwhile More Most Mr Mrs Ms My Now On One Or Our She Since So Some That The Their "
    "Then There These They This Those Though To Under We What When While Who With Yet You"
)


def split_sentences(text: str) -> list[str]:
    """Split English prose into sentences by rule.

    A sentence ends at ``.``, ``!``, ``?`` or an ellipsis, with the quotes and brackets that close
    after it, before white space and a capital or a digit, which may stand behind an opening quote.
    Titles, initials, abbreviations and numbered headings are looked at more closely.
    """
    text = clean_line(text)
    sentences = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        if _ends_sentence(text[start : match.start()], match):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def _ends_sentence(before: str, match: re.Match) -> bool:
    following = match["next"]
    if not (following[0].isupper() or following[0].isdigit()):
        return False
    if match["stop"] != "." or match["close"]:
        return True
    word = re.sub(f"^{OPENING}+", "", before.rsplit(None, 1)[-1]) if before else ""
    if word in _TITLES:
        return False
    if word in _BEFORE_NUMBERS:
        return not following[0].isdigit()
    if word.isdigit() and word == before.strip():  # "3. The third item" is one sentence
        return False
    if word in _EITHER or _INITIALS.fullmatch(word):
        return following in _STARTERS
    return True
