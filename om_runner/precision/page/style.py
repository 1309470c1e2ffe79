# SPDX-License-Identifier: Apache-2.0
"""Rules that only this page needs: the verdict, its few large figures, the pictures."""

from __future__ import annotations

from vxm_convert.webpage.colours import INK, QUIET, RULE

REPORT_STYLE = f"""
.verdict .against {{ color: {INK}; font-weight: 500; }}
.what-failed {{ border-left: 5px solid #b01020; padding: .1rem 0 .1rem 1rem; margin: .8rem 0; }}
.what-failed p {{ font-weight: 650; margin: 0; }}
.what-failed ul {{ margin: .2rem 0; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: 1rem 1.5rem; margin: 1.3rem 0 0; }}
.tiles > div {{ border-top: 1px solid {RULE}; padding-top: .4rem; }}
.tiles dt {{ font-size: .92rem; }}
.tiles dd {{ margin: 0; overflow-wrap: anywhere; }}
.tiles .value {{ color: {QUIET}; }}
.tiles .value strong {{ color: {INK}; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }}
td svg.drawing, th svg.drawing {{ width: 250px; }}
#limits td, #limits tbody th {{ vertical-align: middle; }}
.chain {{ padding-left: 1.4rem; max-width: none; }}
.chain li {{ margin: .15rem 0; }}
.chain li + li::before {{ content: "\\2193"; position: absolute; margin: -.85rem 0 0 -1.2rem; color: {QUIET}; font-size: .75rem; }}
.swatch {{ display: inline-block; width: .85rem; height: .85rem; vertical-align: -.08rem; border: 1px solid {QUIET}; }}
table.slices {{ width: 100%; min-width: 44rem; table-layout: fixed; }}
table.slices th, table.slices td {{ border: 0; padding: .15rem; vertical-align: top; text-align: left; white-space: normal; min-width: 0; }}
table.slices thead th {{ font-size: .82rem; vertical-align: bottom; }}
table.slices th:first-child {{ width: 5.2rem; font-size: .82rem; font-weight: 500; }}
.slice {{ position: relative; border: 1px solid {RULE}; }}
.slice svg {{ position: absolute; left: 0; top: 0; width: 100%; height: 100%; }}
.slice circle {{ fill: none; stroke: {INK}; stroke-width: 1.6px; vector-effect: non-scaling-stroke; }}
@media print {{
  table.slices {{ min-width: 0; }}
  table.slices th:first-child {{ width: 3.6rem; }}
  table.slices {{ width: 66%; }}
  table.slices thead th, table.slices th:first-child {{ font-size: 6pt; }}
  td svg.drawing, th svg.drawing {{ width: 120px; }}
  .tiles {{ grid-template-columns: repeat(4, 1fr); gap: .5rem 1rem; }}
  .tiles .value strong {{ font-size: 13pt; }}
}}
"""
