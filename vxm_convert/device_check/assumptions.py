# SPDX-License-Identifier: Apache-2.0
"""What the simulator and the estimates assume about a device, each with the place that states it and the code that a
device which differs would correct.

The list is the table in docs/precision.md; `om_runner.device_check` has a rung for every entry that can refute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

SEEN, DOCUMENTED, ASSUMED = "source", "documentation", "assumed"


@dataclass(frozen=True)
class Assumption:
    """One statement about the device.

    Parameters
    ----------
    key : str — name in the points of a check.
    text : str — the statement.
    basis : str — ``source`` (read in CANN's open sources), ``documentation`` (the vendor's pages), or ``assumed``.
    rung : str — the rung of the check that can refute it.
    stated : str — section of the documentation that states it.
    corrected : str — the file to change if a device differs.
    """

    key: str
    text: str
    basis: str
    rung: str
    stated: str
    corrected: str


_HALF = "docs/precision.md, How a value becomes fp16"
_OFFERS = "docs/precision.md, What the 910 offers"
_WARP = "docs/precision.md, The warp never forms an absolute coordinate"
_DIFFERENT = "docs/precision.md, What the simulated device computes differently"
_SPEEDS = "docs/ascend.md, Estimate of time and batch"
_CUBE = "vxm_convert/sim/engine/lowering/cube.py"
_NUMERICS = "vxm_convert/sim/numerics.py and engine/lowering/onnx_graph.py"
_DTYPES = "vxm_convert/sim/compiler/dtypes.py"
_ELEMENTWISE = "vxm_convert/sim/engine/lowering/elementwise.py"
_SPEEDS_FILE = "export/preflight/estimate/speeds.py"

ASSUMPTIONS: Tuple[Assumption, ...] = (
    Assumption("rounding", "fp32 becomes fp16 by rounding to nearest, ties to even", SEEN, "conv3d", _HALF, _NUMERICS),
    Assumption(
        "saturation", "values beyond ±65504, also infinity, become ±65504", DOCUMENTED, "conv3d", _HALF, _NUMERICS
    ),
    Assumption("nan", "NaN becomes 0 in fp16", DOCUMENTED, "conv3d", _HALF, _NUMERICS),
    Assumption("subnormals", "subnormal fp16 numbers are kept", ASSUMED, "conv3d", _HALF, _NUMERICS),
    Assumption(
        "accumulation", "products of a convolution are exact and added in fp32", ASSUMED, "conv3d", _OFFERS, _CUBE
    ),
    Assumption(
        "weights", "the compiler rounds the weights of a convolution to fp16", SEEN, "conv3d", _OFFERS, _DTYPES
    ),
    Assumption(
        "fp32_results",
        "force_fp32 gives fp32 results from fp16 operands; other modes round the sum to fp16",
        DOCUMENTED,
        "conv3d",
        _OFFERS,
        _DTYPES,
    ),
    Assumption("bias", "a bias is fp16 and is added to the fp32 sum before rounding", ASSUMED, "conv3d", _HALF, _CUBE),
    Assumption(
        "geometry", "padding, strides and axis order of a convolution are TensorFlow's", SEEN, "conv3d", _OFFERS, _CUBE
    ),
    Assumption(
        "output_order", "outputs have the order of --out_nodes", SEEN, "conv3d", _OFFERS, "vxm_convert/sim/compiler"
    ),
    Assumption(
        "slope", "the slope of LeakyRelu has the kernel's dtype", ASSUMED, "leaky_relu", _HALF, _ELEMENTWISE
    ),
    Assumption(
        "no_fusion",
        "an fp16 vector operator reads and returns rounded values; no fused kernel rounds less often",
        ASSUMED,
        "leaky_relu",
        _DIFFERENT,
        "vxm_convert/sim/compiler/fusion.py",
    ),
    Assumption("vector_fp32", "allow_fp32_to_fp16 keeps vector operators in fp32", DOCUMENTED, "warp", _OFFERS, _DTYPES),
    Assumption("floor", "Floor is exact in fp16 and fp32", ASSUMED, "warp", _WARP, _ELEMENTWISE),
    Assumption("cast", "Cast from float to int32 truncates toward zero", SEEN, "warp", _WARP, _ELEMENTWISE),
    Assumption(
        "indices", "int32 arithmetic and GatherV2's indices are exact for every size", SEEN, "gather", _WARP, _ELEMENTWISE
    ),
    Assumption(
        "operator_table",
        "each operator has the kernels and float types of the table",
        SEEN,
        "conv3d",
        _OFFERS,
        "vxm_convert/ascend/operators.py",
    ),
    Assumption(
        "accepted", "ATC compiles the graphs of this project", ASSUMED, "conv3d", "docs/ascend.md, Before ATC: preflight",
        "export/preflight/rules",
    ),
    Assumption(
        "network_error",
        "the error of the whole network against TensorFlow is that of the simulator",
        ASSUMED,
        "network",
        "docs/precision.md, Every plan, measured",
        "vxm_convert/sim",
    ),
    Assumption(
        "layers",
        "every layer of the network has the values that the simulator computes, but for single fp16 steps",
        ASSUMED,
        "layers",
        _DIFFERENT,
        "vxm_convert/sim",
    ),
    Assumption("determinism", "the same inputs give the same bits", ASSUMED, "steadiness", "docs/precision.md", "—"),
    Assumption(
        "asynchronous",
        "execute_async returns before the work is done, and synchronize_stream lets other Python threads run",
        SEEN,
        "timing",
        "docs/running.md",
        "om_runner/device/acl_runtime.py",
    ),
    Assumption("copy_speed", "copies between host and device reach the link's speed", ASSUMED, "timing", _SPEEDS,
               "vxm_convert/ascend/chips.py"),
    Assumption("gather_speed", "GatherV2 takes 20 cycles of a core per row", ASSUMED, "gather", _SPEEDS, _SPEEDS_FILE),
    Assumption("kernel_speed", "the kernels of an operator take the time of the estimate, within a factor of 5", ASSUMED,
               "operators", _SPEEDS, _SPEEDS_FILE),
    Assumption("memory", "the device has the memory of the table", ASSUMED, "facts", _SPEEDS,
               "vxm_convert/ascend/chips.py"),
)  # fmt: skip
BY_KEY: Dict[str, Assumption] = {entry.key: entry for entry in ASSUMPTIONS}


def assumption_table() -> str:
    """The table of docs/precision.md."""
    lines = ["| assumption | basis | rung of device-check | a device that differs corrects |", "|---|---|---|---|"]
    lines += [f"| `{a.key}`: {a.text} | {a.basis} | `{a.rung}` | `{a.corrected}` |" for a in ASSUMPTIONS]
    return "\n".join(lines)
