# SPDX-License-Identifier: Apache-2.0
"""Shapes without TensorFlow: slices, numbers put together by the graph, loops and tensor arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from export.preflight.view.graph import read_view
from tests.support.graphs import PbBuilder


def ints(pb: PbBuilder, name: str, *values: int) -> str:
    return pb.const(name, np.array(values, np.int32))


def shape_of(pb: PbBuilder, tmp_path: Path, tensor: str, known: Any = None) -> Any:
    return read_view(pb.save(tmp_path / "graph.pb"), [tensor], known).shape(tensor)


@pytest.mark.parametrize(
    "begin, end, strides, masks, want",
    [
        ((1, 0), (3, 6), (1, 2), {}, (2, 3, 7)),
        ((1,), (0,), (1,), {"shrink_axis_mask": 1}, (6, 7)),
        ((0, 0), (0, 0), (1, 1), {"ellipsis_mask": 1, "shrink_axis_mask": 2}, (4, 6)),
        ((0, 0), (0, 3), (1, 1), {"new_axis_mask": 1, "begin_mask": 2}, (1, 3, 6, 7)),
        ((3, 0), (0, 0), (-1, 1), {"end_mask": 3}, (4, 6, 7)),
        ((9,), (0,), (1,), {"shrink_axis_mask": 1}, None),
    ],
)
def test_slices(tmp_path: Path, begin: Any, end: Any, strides: Any, masks: Dict[str, int], want: Any) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", (4, 6, 7))
    pb.node("StridedSlice", "y", x, ints(pb, "b", *begin), ints(pb, "e", *end), ints(pb, "s", *strides), **masks)
    assert shape_of(pb, tmp_path, "y:0") == want


def test_a_shape_that_the_graph_puts_together(tmp_path: Path) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", (4, 6, 7))
    first = pb.node(
        "StridedSlice",
        "first",
        pb.node("Shape", "shape", x),
        ints(pb, "b", 1),
        ints(pb, "e", 2),
        ints(pb, "s", 1),
        shrink_axis_mask=1,
    )
    target = pb.node("Pack", "target", first, pb.const("rest", np.array(-1, np.int32)), N=2)
    pb.node("Reshape", "y", x, target)
    assert shape_of(pb, tmp_path, "y:0") == (6, 28)


def test_a_range_by_its_numbers(tmp_path: Path) -> None:
    pb = PbBuilder()
    pb.node("Range", "y", *(pb.const(name, np.array(n, np.float32)) for name, n in (("a", 1), ("b", 2), ("c", 0.3))))
    assert shape_of(pb, tmp_path, "y:0") == (4,)


def looped(body: str) -> PbBuilder:
    """x of (5, 2) through a tensor array of 5 into a loop of which `body` is ``keep`` or ``grow``."""
    pb = PbBuilder()
    x = pb.placeholder("x", (5, 2))
    array = pb.node("TensorArrayV3", "array", pb.const("size", np.array(5, np.int32)), dtype=np.dtype("float32"))
    rows = pb.node(
        "Range",
        "rows",
        pb.const("zero", np.array(0, np.int32)),
        pb.node("TensorArraySizeV3", "long", array, "array:1"),
        pb.const("one", np.array(1, np.int32)),
    )
    flow = pb.node("TensorArrayScatterV3", "put", array, rows, x, "array:1")
    pb.node("Enter", "w/v", flow, frame_name="w", is_constant=False)
    pb.node("Enter", "w/u", x, frame_name="w", is_constant=False)
    for name in "uv":
        pb.node("Merge", f"w/m{name}", f"w/{name}", f"w/n{name}")
        pb.node("Switch", f"w/s{name}", f"w/m{name}", "w/cond")
    pb.node("LoopCond", "w/cond", pb.node("Less", "w/less", "zero", "one"))
    read = pb.node("TensorArrayReadV3", "w/read", array, "zero", "w/sv:1")
    pb.node(
        "NextIteration",
        "w/nv",
        pb.node("TensorArrayWriteV3", "w/write", array, "zero", pb.node("Neg", "w/neg", read), "w/sv:1"),
    )
    last = pb.const("last", np.array(-1, np.int32))
    pb.node(
        "NextIteration",
        "w/nu",
        pb.node("ConcatV2", "w/more", "w/su:1", "w/su:1", last, N=2)
        if body == "grow"
        else pb.node("Neg", "w/same", "w/su:1"),
    )
    pb.node("TensorArrayGatherV3", "y", array, rows, pb.node("Exit", "w/xv", "w/sv"))
    pb.node("Pack", "both", "y", pb.node("Exit", "w/xu", "w/su"), N=2)
    return pb


def test_tensor_arrays_know_their_elements_through_a_loop(tmp_path: Path) -> None:
    pb = looped("keep")
    assert shape_of(pb, tmp_path, "w/read:0") == (2,)
    assert shape_of(pb, tmp_path, "y:0") == (5, 2) and shape_of(pb, tmp_path, "w/xu:0") == (5, 2)


def test_a_variable_that_grows_in_a_loop_has_no_shape(tmp_path: Path) -> None:
    assert shape_of(looped("grow"), tmp_path, "w/xu:0") is None


def test_what_tensorflow_knows_is_believed_and_the_rest_found(tmp_path: Path) -> None:
    pb = PbBuilder()
    pb.node("Neg", "y", pb.node("Strange", "odd", pb.placeholder("x", (4, 6))))
    assert shape_of(pb, tmp_path, "y:0") is None
    assert shape_of(pb, tmp_path, "y:0", {"x:0": (4, 6), "odd:0": (3, 3), "y:0": (-1, 3)}) == (3, 3)
