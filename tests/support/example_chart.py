# SPDX-License-Identifier: Apache-2.0
"""One chart with every kind of mark, drawn in this process or in another."""

from __future__ import annotations

from vxm_convert.webpage.charts import chart, legend, mark, scale, titles


def drawn(name: str = "name", width: int = 460, alone: bool = False) -> str:
    with chart(width, 200) as made:
        axes = made.axes(60, 40, width - 20, 150)
        scale(axes.xaxis, 0.0, 3.0)
        scale(axes.yaxis, 1e-4, 10.0, logarithmic=True)
        titles(axes, name, name)
        axes.stairs([1e-3, 1.0], [0, 1, 3], baseline=None, label=name, color="#112233", linestyle=(0, (4, 2)))
        mark(axes, "dot", 1.0, 0.1, "#c44a00", words=name)
        mark(axes, "diamond", 2.0, 0.1, "#c44a00")
        legend(axes)
        made.words(10, 20, name, bold=True)
        return made.file(name) if alone else str(made.svg(name))
