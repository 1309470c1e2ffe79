# SPDX-License-Identifier: Apache-2.0
"""Engine rewrite: the transposed convolution that `transposed` makes becomes eight small convolutions, one per parity
of the output.

Before: ``y = ConvTranspose3D(x, k)``, kernel 4, stride 2, padding 1 along every axis. After:
``y = Interleave(Concat(Conv3D(x, k_p) for the eight parities p))``, kernels of 2×2×2, which are disjoint parts of k. Along
one axis, ``y[2i] = x[i−1]·k[3] + x[i]·k[1]`` and ``y[2i+1] = x[i]·k[2] + x[i+1]·k[0]``. The multiplications are the
same.

For engines without a direct kernel for transposed convolutions of volumes, which go through a matrix of columns instead
(OpenVINO 2023.1 on processors with AVX2 only: twice the CPU time of this form, layout changes and interleaving
included).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Dict, List

import numpy as np

from vxm_convert.formats.ge_ir import Desc, Op

#: parity → taps of the 4-wide kernel, in the order of the inputs they meet
_TAPS = ([3, 1], [2, 0])


def split_phases(ops: List[Op]) -> List[Op]:
    """Apply the rewrite to every transposed convolution that `transposed.fold_upsampling` made."""
    constants = {f"{op.name}:0": op for op in ops if op.data is not None}
    result: List[Op] = []
    for op in ops:
        result.extend(_rewrite(op, constants) if op.type == "ConvTranspose3D" else [op])
    return result


def _rewrite(op: Op, constants: Dict[str, Op]) -> List[Op]:
    kernel = constants[op.inputs[1]].value
    batch, *sides = op.input_descs[0].logical_shape[:4]
    filters = kernel.shape[-1]
    part = Desc("float32", (batch, *sides, filters), "NDHWC")
    made: List[Op] = []
    convolutions: List[Op] = []
    for parity in product(range(2), repeat=3):
        name = f"{op.name}/{''.join(map(str, parity))}"
        taps = np.ascontiguousarray(kernel[np.ix_(*(_TAPS[side] for side in parity))])
        weights = Op(f"{name}/kernel", "Const", [], {}, [], [Desc("float32", taps.shape, "DHWCN")], taps)
        pads = [width for side in parity for width in (1 - side, side)]
        attrs = {"strides": [1] * 5, "dilations": [1] * 5, "pads": pads, "data_format": "NDHWC"}
        convolutions.append(
            Op(
                name,
                "Conv3D",
                [op.inputs[0], f"{weights.name}:0"],
                attrs,
                [op.input_descs[0], weights.output_descs[0]],
                [part],
            )
        )
        made += [weights, convolutions[-1]]
    joined = replace(part, shape=(batch, *sides, 8 * filters))
    sources = [f"{conv.name}:0" for conv in convolutions]
    made.append(Op(f"{op.name}/parities", "ConcatV2D", sources, {"concat_dim": 4}, [part] * 8, [joined]))
    made.append(Op(op.name, "Interleave", [f"{op.name}/parities:0"], {"factors": [2, 2, 2]}, [joined], op.output_descs))
    return made
