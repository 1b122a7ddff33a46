"""How does a figure get into the page, and into files for a paper?

In the page it is inline SVG without any style of its own, since the page's policy forbids it:
styles become attributes, colours become the page's variables, so that they follow light and dark,
and ids are unique. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from tunediff.report.plots import NAMES, PAPER, Figure

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_FINE = re.compile(r"-?\d+\.\d+")
_DPI = 200  # of a PNG


def inline(figure: Figure, ident: str, title: str, description: str) -> str:
    """The figure as an ``<svg>`` element.

    Args:
        figure: of :mod:`tunediff.report.plots`; called within its ``style()``, as is ``save``.
        ident: what its ids begin with; no other figure of the page has it.
        title: read aloud first.
        description: the text alternative.

    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=_NO_METADATA)
    root = ET.fromstring(out.getvalue())
    _strip(root)
    for element in list(root.iter()):
        element.tag = element.tag.removeprefix(_SVG)
        _presented(element)
    _rename(root, ident)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "role": "img",
        "aria-labelledby": f"{ident}-title {ident}-desc",
        "stroke-linejoin": "round",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{ident}-{tag}"})
        element.text = text
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name.png`` and ``name.svg``, in the colours of paper."""
    for ending in ("png", "svg"):
        metadata = _NO_METADATA if ending == "svg" else {"Software": None}
        path = folder / f"{name}.{ending}"
        figure.savefig(path, dpi=_DPI, facecolor=PAPER, metadata=metadata)


def as_file(figure: Figure) -> bytes:
    """The figure as an SVG file, in the colours of paper."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", facecolor=PAPER, metadata=_NO_METADATA)
    return out.getvalue()


def _strip(root: ET.Element) -> None:
    """Without matplotlib's metadata and style sheet."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)


def _presented(element: ET.Element) -> None:
    """Styles as attributes; the font is the page's, the colours are its variables."""
    for part in element.attrib.pop("style", "").split(";"):
        name, _, value = (p.strip() for p in part.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            element.set("font-size", size[1] if size else "9")
        elif name and name not in ("font-family", "stroke-linejoin"):
            element.set(name, value)
    for name in ("d", "points"):
        if name in element.attrib:
            rounded = _FINE.sub(lambda m: f"{float(m[0]):.1f}", element.attrib[name])
            element.set(name, " ".join(rounded.split()))
    for name in ("fill", "stroke"):
        colour = element.get(name, "").lower()
        if colour in NAMES:
            element.set(name, f"var(--{NAMES[colour]})")
    if element.tag == "text" and element.get("fill") is None:
        element.set("fill", "var(--ink)")


def _rename(root: ET.Element, ident: str) -> None:
    """Only the ids that something refers to, each with the figure's own beginning."""
    text = ET.tostring(root, encoding="unicode")
    used = dict.fromkeys(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    names = {a or b: f"{ident}-{k}" for k, (a, b) in enumerate(used)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in names:
            element.set("id", names[own])
        target = element.attrib.pop(_HREF, None)
        if target is not None:
            element.set("href", f"#{names[target[1:]]}")
        for key, value in element.attrib.items():
            if value.startswith("url(#"):
                element.set(key, f"url(#{names[value[5:-1]]})")
