"""matplotlib's SVG made fit to stand inside a page: small, in the page's fonts and colours.

The colours that figures are drawn with become variables of the page's style sheet, so that one
picture serves a light and a dark page; text stays text, and points can have tooltips.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from matplotlib.figure import Figure

from fairseq_vat.report.markup import Markup

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_FONT_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_FONT = re.compile(r"font: ([^;']*?px)[^;]*")
_URL = re.compile(r"url\(#")
_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def inline(
    figure: Figure,
    name: str,
    label: str,
    colours: Mapping[str, str],
    titles: Mapping[str, Sequence[str]] | None = None,
) -> Markup:
    """A figure as an ``svg`` element.

    Args:
        figure: drawn with ``svg.fonttype`` ``none``.
        name: goes in front of every id, which must be the page's only ones.
        label: what the picture shows, for those who can't see it.
        colours: CSS colours by the hexadecimal ones in the figure.
        titles: by the gid of a collection of points, a tooltip for each.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    for points, texts in (titles or {}).items():
        _add_titles(root, points, texts)
    for parent in root.iter():
        for child in list(parent):
            # its rule would hold for the whole page
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        node.attrib = {
            key.removeprefix(_XLINK): _value(key, value, name, colours)
            for key, value in node.attrib.items()
        }
        node.tail = None
        if node.tag not in ("text", "tspan", "title"):
            node.text = None
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _value(key: str, value: str, name: str, colours: Mapping[str, str]) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-")
    value = _URL.sub(f"url(#{name}-", value)
    if key == "style":
        value = _FONT.sub(r"font-size: \1", _FONT_FAMILY.sub("", value))
        for drawn, wanted in colours.items():
            value = value.replace(drawn, wanted)
    if key in ("d", "x", "y", "transform"):
        value = _NUMBER.sub(lambda match: f"{float(match[0]):.1f}", " ".join(value.split()))
    return value


def _add_titles(root: ElementTree.Element, gid: str, titles: Sequence[str]) -> None:
    (group,) = (node for node in root.iter(f"{_SVG}g") if node.get("id") == gid)
    points = list(group.iter(f"{_SVG}use"))
    for point, text in zip(points, titles, strict=True):
        ElementTree.SubElement(point, "title").text = text
