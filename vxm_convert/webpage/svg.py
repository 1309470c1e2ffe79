# SPDX-License-Identifier: Apache-2.0
"""Adapts Matplotlib's SVG to a page: no inline style, which the page's policy forbids, no ids, no references.

Styles become attributes, marks are inlined, numbers are rounded, and an id that starts with `TIP` becomes the tooltip
of its group.
"""

from __future__ import annotations

import re
from typing import Dict, Iterator, Optional
from xml.etree import ElementTree

from vxm_convert.webpage.colours import PAPER, PROPERTIES

#: prefix of the ids with the text of a tooltip
TIP = "tip: "
#: style of all marks in Matplotlib's own style sheet
_DEFAULTS = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
_FONT = re.compile(r"(?:(?P<weight>bold|\d00) )?(?P<size>[\d.]+)px")
_COLOUR = re.compile(r'"(#[0-9a-f]{6})"')
_DECIMALS = re.compile(r"-?\d+\.\d{2,}(?:e-?\d+)?")
#: omitted: SVG's defaults, and properties that the page's style sheet sets
_IMPLIED = {
    ("opacity", "1"),
    ("stroke-width", "1"),
    ("stroke-dashoffset", "0"),
    ("font-weight", "400"),
    ("text-anchor", "start"),
    ("stroke-linejoin", "miter"),
}
_DROPPED = frozenset(("metadata", "style", "defs", "clipPath"))


def cleaned(source: str, description: str, classes: str = "", white_is_data: bool = False) -> str:
    """An SVG element for a page, or a separate file.

    Parameters
    ----------
    source : str — the file that Matplotlib wrote.
    description : str — description for readers who cannot see the chart.
    classes : str — classes of the element on a page, where colours of ours follow the reader's scheme. Without classes
        it becomes a separate file with namespace, size and fonts.
    white_is_data : bool — white stays white in every scheme, as on the scale of a picture.
    """
    root = ElementTree.fromstring(source)
    marks = {node.get("id", ""): node for node in root.iter() if _tag(node) == "path" and node.get("id")}
    box = root.get("viewBox", "")
    made = ElementTree.Element("svg", {"viewBox": box, "role": "img", "aria-label": description})
    made.attrib.update(_DEFAULTS)
    if classes:
        made.set("class", classes)
    else:
        width, height = box.split()[2:]
        made.attrib.update(_of_a_file(width, height))
    made.extend(_children(root, marks))
    text = ElementTree.tostring(made, encoding="unicode")
    if not classes:
        return text
    following = {colour: name for colour, name in PROPERTIES.items() if not (white_is_data and colour == PAPER)}
    return _COLOUR.sub(lambda found: f'"{following.get(found.group(1), found.group(1))}"', text)


def _of_a_file(width: str, height: str) -> Dict[str, str]:
    fonts = "system-ui, sans-serif"
    return {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height, "font-family": fonts}


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else "comment"


def _children(node: ElementTree.Element, marks: Dict[str, ElementTree.Element]) -> Iterator[ElementTree.Element]:
    for child in node:
        tag = _tag(child)
        if tag in _DROPPED or tag == "comment":
            continue
        if tag == "use":
            yield _mark(child, marks)
            continue
        inside = list(_children(child, marks))
        tip = child.get("id", "")
        if tag == "g" and not tip.startswith(TIP) and not child.get("transform"):
            # Groups without a tooltip or transform only cost bytes.
            yield from inside
            continue
        made = ElementTree.Element(tag, _attributes(child))
        made.text = (child.text or "") if tag in ("text", "tspan") else None
        if tip.startswith(TIP):
            title = ElementTree.SubElement(made, "title")
            title.text = tip[len(TIP) :]
        made.extend(inside)
        if not _invisible(made):
            yield made


def _invisible(node: ElementTree.Element) -> bool:
    return node.tag == "path" and node.get("fill") == "none" and node.get("stroke") is None


def _mark(use: ElementTree.Element, marks: Dict[str, ElementTree.Element]) -> ElementTree.Element:
    """The mark of a `use`, inlined."""
    reference = next(value for name, value in use.attrib.items() if name.endswith("href"))
    shape = marks[reference[1:]]
    attributes = {**_attributes(shape), **_attributes(use)}
    place = f"translate({attributes.pop('x')} {attributes.pop('y')})"
    return ElementTree.Element("path", {**attributes, "transform": place})


def _attributes(node: ElementTree.Element) -> Dict[str, str]:
    kept = {}
    for name, value in node.attrib.items():
        if name in ("d", "x", "y", "transform", "width", "height"):
            kept[name] = _short(value)
    for rule in (node.get("style") or "").split(";"):
        name, _, value = (part.strip() for part in rule.partition(":"))
        kept.update(_presentation(name, value))
    if kept.get("transform", "").startswith("rotate(-0") or kept.get("transform", "").startswith("rotate(0"):
        del kept["transform"]
    return {name: value for name, value in kept.items() if (name, value) not in _IMPLIED}


def _presentation(name: str, value: str) -> Dict[str, str]:
    """Attributes for one declaration of a style; fonts are the page's, their size and weight are not."""
    if name == "font":
        found = _FONT.search(value)
        if found is None:
            raise ValueError(f"chart: font {value!r}, expected a size in px")
        kept = {"font-size": found.group("size")}
        return {**kept, "font-weight": _weight(found.group("weight"))} if found.group("weight") else kept
    if name == "font-size":
        return {name: value.replace("px", "")}
    if name == "font-weight":
        return {name: _weight(value)}
    return {} if name in ("", "font-family", "font-style") else {name: _short(value)}


def _weight(value: Optional[str]) -> str:
    return "700" if value == "bold" else str(value)


def _short(value: str) -> str:
    rounded = _DECIMALS.sub(lambda found: f"{float(found.group()):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(rounded.replace("-0 ", "0 ").split())
