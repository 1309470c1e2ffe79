# SPDX-License-Identifier: Apache-2.0
"""Rules that only these pages need: the dark scheme, the thumbnails, the stage on which pictures change places."""

from __future__ import annotations

from vxm_convert.webpage.colours import BLUE, INK, QUIET, RULE

_DARK_PAGE, _DARK_INK, _DARK_QUIET, _DARK_RULE, _DARK_FAINT, _DARK_LINK = (
    "#14171d",
    "#e6e9ef",
    "#a9b2c3",
    "#3a4252",
    "#1f2530",
    "#7cc4f0",
)

QC_STYLE = f"""
.controls {{ display: flex; flex-wrap: wrap; gap: .5rem .9rem; align-items: center; margin: .9rem 0; }}
.controls label {{ display: inline-flex; gap: .4rem; align-items: center; }}
button.do, .controls input, td select, td input, .rate select, .rate input {{
  font: inherit; color: inherit; background: transparent; border: 1px solid {QUIET}; border-radius: .25rem; padding: .25rem .6rem;
  max-width: 100%;
}}
button.do {{ cursor: pointer; }}
button.do[aria-pressed="true"] {{ background: {BLUE}; border-color: {BLUE}; color: #fff; }}
:focus-visible {{ outline: 3px solid {BLUE}; outline-offset: 1px; }}
td select, td input {{ padding: .1rem .3rem; font-size: .88rem; }}
td input {{ width: 8rem; }}
td.rating {{ white-space: nowrap; min-width: 15rem; }}
body:has(#cohort) > header, main:has(#cohort) {{ max-width: 88rem; }}
td.thumb {{ padding: .15rem .4rem; min-width: 0; }}
td.thumb img {{ width: 204px; max-width: none; height: auto; background: #000; image-rendering: auto; }}
#cohort tbody td, #cohort tbody th {{ vertical-align: middle; }}
#cohort ul {{ margin: 0; padding: 0; list-style: none; min-width: 12rem; max-width: 20rem; }}
#cohort li::before, .warnings li::before {{ content: "! "; font-weight: 700; color: #b01020; }}
.warnings {{ list-style: none; padding: 0; }}
[hidden] {{ display: none !important; }}
.scripted {{ display: none; }}
.js .scripted {{ display: flex; }}
figure.slices img {{ min-width: 44rem; background: #000; image-rendering: auto; }}
figure.slices.white img {{ background: #fff; border: 1px solid {RULE}; }}
figure.overview img {{ max-width: 60rem; background: #000; image-rendering: auto; }}
.three {{ display: grid; grid-template-columns: repeat(3, 1fr); max-width: 60rem; text-align: center; font-size: .9rem; font-weight: 600; }}
.js .stage {{ display: grid; }}
.js .stage > figure {{ grid-area: 1 / 1; visibility: hidden; margin: 0; }}
.js .stage > figure.shown {{ visibility: visible; }}
.stage {{ margin: .5rem 0 1rem; }}
.bar {{ max-width: 30rem; }}
.neighbours {{ display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; margin: .8rem 0; }}
.key {{ display: inline-block; width: .85rem; height: .85rem; vertical-align: -.08rem; border: 1px solid {QUIET}; margin-right: .25rem; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 0 1.5rem; }}
.pair figure.slices img {{ min-width: 0; }}
kbd {{ border: 1px solid {QUIET}; border-radius: .2rem; padding: 0 .3rem; font: .85em ui-monospace, Menlo, Consolas, monospace; }}
@media (max-width: 40rem) {{
  td.thumb img {{ width: 150px; }}
  .js #cohort th:first-child {{ position: static; }}
}}
@media screen and (prefers-color-scheme: dark) {{
  :root {{ color-scheme: dark; }}
  body {{ background: {_DARK_PAGE}; color: {_DARK_INK}; }}
  h2 {{ border-color: {_DARK_INK}; }}
  a {{ color: {_DARK_LINK}; }}
  .note, figcaption, caption, .versions, dt, .unjudged, .missing {{ color: {_DARK_QUIET}; }}
  th:first-child {{ background: {_DARK_PAGE}; }}
  th, td, .toolchain {{ border-color: {_DARK_RULE}; }}
  thead th {{ border-color: {_DARK_QUIET}; }}
  tbody tr:hover > * {{ background: {_DARK_FAINT}; }}
  th button::after {{ color: {_DARK_QUIET}; }}
  th[aria-sort] button::after {{ color: {_DARK_INK}; }}
  svg text {{ fill: {_DARK_INK}; stroke: {_DARK_PAGE}; }}
  svg line {{ stroke: {_DARK_INK}; }}
  .passed {{ color: #63d2ad; }}
  .failed, #cohort li::before, .warnings li::before {{ color: #ff9a8a; }}
  option {{ background: {_DARK_PAGE}; color: {_DARK_INK}; }}
  :focus-visible, .scroll:focus-visible, button:focus-visible {{ outline-color: {_DARK_LINK}; }}
}}
@media print {{
  .scripted, .neighbours, .rating {{ display: none !important; }}
  .js .stage {{ display: block; }}
  .js .stage > figure {{ visibility: visible; }}
  figure.slices img {{ min-width: 0; }}
  td.thumb img {{ width: 40mm; }}
  body {{ color: {INK}; }}
}}
"""
