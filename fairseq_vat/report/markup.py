"""HTML by construction: whatever isn't markup already is escaped on its way in."""

from __future__ import annotations

from html import escape

_VOID = frozenset(("br", "meta"))


class Markup(str):
    """Text that is HTML; plain strings are not, and get escaped by `element` and `join`."""


def join(*parts: object) -> Markup:
    """Parts one after the other: `Markup` as it is, everything else escaped; None is nothing."""
    return Markup("".join(_html(part) for part in parts if part is not None))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An HTML element.

    Args:
        name: such as ``p``.
        *children: as for `join`.
        **attributes: an underscore at the end is dropped and those within become hyphens
            (``class_``, ``aria_label``); None leaves the attribute out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")


def table(head: list[str], rows: list[list[object]], caption: str) -> Markup:
    """A table whose first column names its rows."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    return element(
        "table",
        element("caption", caption),
        element("thead", top),
        element("tbody", *body),
    )


def _html(part: object) -> str:
    return part if isinstance(part, Markup) else escape(str(part))
