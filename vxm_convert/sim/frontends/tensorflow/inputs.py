# SPDX-License-Identifier: Apache-2.0
"""Nodes that are sources of values: placeholders, constants, random numbers."""

from __future__ import annotations

from typing import Any, Callable, Dict

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer
from vxm_convert.sim.refusal import AtcRefusal

INPUT_DTYPES = ("float16", "float32", "uint8", "int32", "int64", "bool")


def _placeholder(importer: Importer, node: TfNode) -> None:
    dtype, shape = node.attrs.get("dtype"), importer.input_shapes.get(node.name, node.attrs.get("shape"))
    if dtype not in INPUT_DTYPES:
        raise AtcRefusal(
            "E19999", f"input {node.name} has data type {dtype}, expected one of {', '.join(INPUT_DTYPES)}"
        )
    if shape is None or any(side < 1 for side in shape):
        raise AtcRefusal(
            "E20001",
            f"input {node.name} has shape {shape}; the simulated compiler takes static shapes only",
            solution="Freeze with static shapes or pass --input_shape.",
        )
    known = node.attrs.get("shape")
    if known is not None and len(known) != len(shape):
        raise AtcRefusal(
            "E10001", f"--input_shape gives {node.name} {len(shape)} dimensions, the graph has {len(known)}"
        )
    importer.add(node, "Data", [], [(dtype, shape)], index=sum(op.type == "Data" for op in importer.ops.values()))


def _const(importer: Importer, node: TfNode) -> None:
    importer.add_const(node.name, node.attrs["value"])


def _random(importer: Importer, node: TfNode) -> None:
    """Runs on the AI CPU with TensorFlow's own kernel, so the node keeps its type as an attribute and its fp32.

    Attributes are those of a file that the real ATC wrote. Seeds of 0 mean "any" in TensorFlow; here 0 is a seed too.
    """
    shape = importer.ints(node, 0)
    whole = node.op == "RandomUniformInt"
    dtype = node.attrs.get("Tout" if whole else "dtype") or ("int32" if whole else "float32")
    if dtype not in (("int32", "int64") if whole else ("float32",)):
        raise AtcRefusal(
            "E20001", f"{node.name}: the AI CPU draws float32, and integers for RandomUniformInt, not {dtype}"
        )
    limits: Dict[str, Any] = (
        {"minval": int(importer.const(node, 1)), "maxval": int(importer.const(node, 2))} if whole else {}
    )
    if whole and limits["minval"] >= limits["maxval"]:
        raise AtcRefusal("E20001", f"{node.name}: there is no number between {limits['minval']} and {limits['maxval']}")
    importer.add(
        node,
        "FrameworkOp",
        node.inputs[:1],
        [(dtype, tuple(shape))],
        original_type=node.op,
        _ge_attr_op_kernel_lib_name="aicpu_tf_kernel",
        _lxfusion_engine_name="DNN_VM_AICPU",
        seed=int(node.attrs.get("seed") or 0),
        seed2=int(node.attrs.get("seed2") or 0),
        **limits,
    )


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "Placeholder": _placeholder,
    "Const": _const,
    "RandomStandardNormal": _random,
    "RandomUniform": _random,
    "TruncatedNormal": _random,
    "RandomUniformInt": _random,
}
