# SPDX-License-Identifier: Apache-2.0
"""How the pages look: dark on white, a palette that colour-blind readers can tell apart, a phone and a sheet of paper.

No rule loads anything. Meanings are never in colour alone: verdicts carry a sign and a word, series a shape of mark.
"""

from __future__ import annotations

from typing import Optional

from vxm_convert.webpage.colours import BLUE, FAINT, GREEN, INK, QUIET, RULE
from vxm_convert.webpage.elements import badge_word

STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }}
body {{ margin: 0; background: #fff; color: {INK}; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }}
header, main {{ max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }}
main {{ padding-bottom: 4rem; }}
h1, h2, h3 {{ line-height: 1.2; overflow-wrap: anywhere; }}
h1 {{ font-size: clamp(1.6rem, 1.1rem + 2.2vw, 2.5rem); margin: 1.2rem 0 .6rem; letter-spacing: -.01em; }}
h2 {{ font-size: 1.3rem; margin: 2.6rem 0 .4rem; padding-top: .7rem; border-top: 2px solid {INK}; }}
h3 {{ font-size: 1.05rem; margin: 1.8rem 0 .3rem; }}
p, li, dd, figcaption {{ overflow-wrap: anywhere; }}
p {{ margin: .5rem 0; max-width: 48rem; }}
ul, ol {{ padding-left: 1.3rem; max-width: 48rem; }}
a {{ color: {BLUE}; }}
code {{ font: .88em ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }}
.note, figcaption, caption {{ color: {QUIET}; font-size: .9rem; }}
.toolchain {{ max-width: none; margin: 0; padding: .7rem 0; border-bottom: 1px solid {RULE}; font-size: .92rem; }}
.badge {{ display: inline-block; padding: .1rem .65rem; border: 2px solid; border-radius: .25rem; letter-spacing: .06em; }}
.badge.sim {{ background: #9a3b00; border-color: #9a3b00; color: #fff; }}
.badge.real {{ background: {GREEN}; border-color: {GREEN}; color: #fff; }}
figcaption .badge {{ padding: 0 .35rem; border-width: 1px; font-size: .75rem; }}
.versions {{ color: {QUIET}; }}
.passed {{ color: {GREEN}; font-weight: 650; }}
.failed {{ color: #b01020; font-weight: 700; }}
.unjudged, .missing {{ color: {QUIET}; font-weight: 400; }}
.scroll {{ overflow-x: auto; margin: 1rem 0; max-width: 100%; }}
.scroll:focus-visible, button:focus-visible {{ outline: 3px solid {BLUE}; outline-offset: 1px; }}
table {{ border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding-bottom: .35rem; }}
caption > span {{ display: inline-block; position: sticky; left: 0; max-width: min(66rem, 100vw - 2.5rem); overflow-wrap: anywhere; }}
th, td {{ padding: .3rem .6rem; border-bottom: 1px solid {RULE}; text-align: right; vertical-align: baseline; white-space: nowrap; }}
thead th {{ border-bottom: 2px solid {QUIET}; vertical-align: bottom; white-space: normal; min-width: 4.4rem; font-weight: 600; }}
tbody th {{ font-weight: 500; }}
th.text, td.text, th.name, td.name {{ text-align: left; }}
td.text {{ white-space: normal; min-width: 7rem; }}
th.name, td.name {{ white-space: normal; overflow-wrap: anywhere; min-width: 8.5rem; max-width: 15rem; }}
th:first-child {{ padding-left: 0; position: sticky; left: 0; background: #fff; }}
th button {{ all: unset; cursor: pointer; display: inline; }}
th button::after {{ content: " \\2195"; color: {QUIET}; font-weight: 400; }}
th[aria-sort="ascending"] button::after {{ content: " \\2191"; color: {INK}; }}
th[aria-sort="descending"] button::after {{ content: " \\2193"; color: {INK}; }}
tbody tr:hover > * {{ background: {FAINT}; }}
dl {{ display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1.1rem; margin: .8rem 0; }}
dt {{ color: {QUIET}; }}
dd {{ margin: 0; }}
figure {{ margin: 1rem 0; min-width: 0; }}
svg.drawing {{ display: block; width: 100%; height: auto; font-weight: 400; }}
.tall .wide {{ max-width: 46rem; }}
svg text {{ font-family: system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }}
svg text {{ paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }}
img {{ display: block; width: 100%; height: auto; image-rendering: pixelated; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: .5rem 2.5rem; align-items: start; }}
@media (max-width: 40rem) {{
  header, main {{ padding-left: 1rem; padding-right: 1rem; }}
  dl {{ grid-template-columns: minmax(0, 1fr); gap: 0; }}
  dd {{ margin-bottom: .5rem; }}
  caption > span {{ max-width: calc(100vw - 2rem); }}
  th.name, td.name {{ min-width: 6.5rem; max-width: 9rem; }}
  .drawing.wide {{ min-width: 34rem; }}
}}
"""


def print_style(simulated: Optional[bool]) -> str:
    """Rules for paper: black on white, nothing clipped, the badge in the margin of each sheet and behind every
    heading.
    """
    word = "none" if simulated is None else f'"{badge_word(simulated)}"'
    return f"""
@page {{
  size: A4; margin: 17mm 13mm 15mm;
  @top-left {{ content: {word}; font: 700 9pt system-ui, sans-serif; letter-spacing: .06em; }}
  @bottom-right {{ content: counter(page) " / " counter(pages); font: 8pt system-ui, sans-serif; }}
}}
@media print {{
  body {{ font-size: 9.5pt; color: #000; }}
  header, main {{ max-width: none; padding: 0; }}
  h1 {{ font-size: 20pt; }}
  h2 {{ font-size: 13pt; margin-top: 1.4rem; }}
  h2::after {{ content: {word}; float: right; font-size: 8pt; letter-spacing: .06em; border: 1px solid; padding: 0 .4em; }}
  h2, h3, caption {{ break-after: avoid; }}
  tr, figure, dl, li {{ break-inside: avoid; }}
  thead {{ display: table-header-group; }}
  .badge, .badge.sim, .badge.real {{ background: #fff; color: #000; border-color: #000; }}
  .scroll {{ overflow: visible; margin: .6rem 0; }}
  caption > span {{ position: static; max-width: none; }}
  table {{ width: 100%; font-size: 7.5pt; }}
  th, td {{ white-space: normal; padding: .12rem .3rem; overflow-wrap: break-word; }}
  thead th, td.text {{ min-width: 0; }}
  th.name, td.name {{ min-width: 4.6rem; max-width: none; overflow-wrap: anywhere; }}
  .charts {{ grid-template-columns: 1fr 1fr; gap: 0 6mm; }}
  .drawing.wide {{ min-width: 0; }}
  .tall .wide {{ max-width: 150mm; }}
  th:first-child {{ position: static; background: none; }}
  th button::after {{ content: none; }}
  th[aria-sort] button::after {{ content: none; }}
  svg, img {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  .note, figcaption, caption {{ font-size: 8pt; }}
  .note, figcaption, caption, .versions, dt {{ color: #333; }}
}}
"""
