# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow operators with kernels on an Ascend 910, with engine and float types.

Source: operator information of the 910 in CANN (aic-ascend910-ops-info, CANN 8.1.RC1, and the Apache-2.0 canndev tree
of 2021-12), and the TensorFlow parser's registration list. Rows under "images", "more vector operators" and "more that
moves values" come from general knowledge of that tree and were not checked against it: unverified until tried with a
real compiler. ``precision_reduce`` is the flag for allow_mix_precision: True goes to fp16, False keeps fp32, None
follows the predecessor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

BOTH = ("float16", "float32")
HALF = ("float16",)
SINGLE = ("float32",)

AICORE, AICPU, LOCAL = "AI Core", "AI CPU", "GE local"


@dataclass(frozen=True)
class OpSupport:
    """One row: GE type, engine, float types of the data input, whether it is a cube operator, mix-precision flag.

    `singles_from`: operands from this position on stay fp32, for any type of data. `single_out`: so does the result.
    """

    ge_type: str
    engine: str
    floats: Tuple[str, ...]
    cube: bool = False
    precision_reduce: Optional[bool] = None
    singles_from: int = 1 << 8
    single_out: bool = False


def _rows(engine: str, floats: Tuple[str, ...], names: str, **more: object) -> Dict[str, OpSupport]:
    """``TfName`` or ``TfName:GeType``, separated by blanks."""
    rows = {}
    for entry in names.split():
        tf_name, _, ge_type = entry.partition(":")
        rows[tf_name] = OpSupport(ge_type or tf_name, engine, floats, **more)  # type: ignore[arg-type]
    return rows


OPS: Dict[str, OpSupport] = {
    **_rows(
        LOCAL,
        BOTH,
        "Placeholder:Data Const Identity Reshape Squeeze ExpandDims Shape Rank Size StopGradient:Identity "
        "Snapshot:Identity PreventGradient:Identity PlaceholderWithDefault:Identity ShapeN IdentityN BroadcastArgs",
    ),
    **_rows(
        LOCAL,
        BOTH,
        "While StatelessWhile If StatelessIf Case StatelessCase PartitionedCall StatefulPartitionedCall "
        "Exit LoopCond Merge Switch",
    ),
    **_rows(LOCAL, BOTH, "Enter NextIteration", precision_reduce=False),
    # fp16 operands only: the 910's cube unit has no fp32 convolution.
    **_rows(AICORE, HALF, "Conv3D Conv3DBackpropInputV2:Conv3DBackpropInputD", cube=True, precision_reduce=True),
    **_rows(AICORE, BOTH, "MatMul:MatMulV2 BatchMatMul BatchMatMulV2:BatchMatMul", cube=True, precision_reduce=True),
    **_rows(
        AICORE,
        BOTH,
        "BiasAdd BiasAddV1:BiasAdd LeakyRelu Relu Elu Sigmoid Tanh Maximum Minimum Mul Add AddV2:Add Sub RealDiv Div "
        "DivNoNan Square Sqrt Rsqrt Neg Abs Exp Floor Round Cast ClipByValue AddN FloorDiv FloorMod",
    ),
    **_rows(
        AICORE,
        BOTH,
        "ConcatV2:ConcatV2D Split:SplitD SplitV:SplitVD Tile:TileD Pack Unpack Transpose:TransposeD "
        "StridedSlice:StridedSliceD Slice:SliceD Gather:GatherV2D GatherV2:GatherV2D GatherNd Fill ZerosLike OnesLike "
        "BroadcastTo:BroadcastToD Pad:PadD PadV2:PadV2D OneHot:OneHotD ScatterNd:ScatterNdD",
    ),
    **_rows(
        AICORE,
        BOTH,
        "ResizeNearestNeighbor:ResizeNearestNeighborV2D MaxPool3D Softmax:SoftmaxV2 Max:ReduceMaxD Min:ReduceMinD "
        "ArgMax:ArgMaxD",
    ),
    **_rows(AICORE, BOTH, "ResizeBilinear:ResizeBilinearV2D", single_out=True),
    **_rows(
        AICORE, BOTH, "FusedBatchNorm:BatchNorm FusedBatchNormV2:BatchNorm FusedBatchNormV3:BatchNorm", singles_from=1
    ),
    **_rows(AICORE, BOTH, "Mean:ReduceMeanD Sum:ReduceSumD Prod:ReduceProdD", precision_reduce=False),
    **_rows(AICORE, HALF, "AvgPool3D:AvgPool3DD"),
    **_rows(AICORE, SINGLE, "Range:RangeD LinSpace:LinSpaceD"),
    **_rows(
        AICORE,
        BOTH,
        "Less LessEqual Greater GreaterEqual Equal NotEqual LogicalAnd LogicalOr LogicalNot Select SelectV2",
    ),
    # Images.
    **_rows(
        AICORE,
        HALF,
        "Conv2D DepthwiseConv2dNative:DepthwiseConv2D Conv2DBackpropInput:Conv2DBackpropInputD",
        cube=True,
        precision_reduce=True,
    ),
    **_rows(AICORE, BOTH, "MaxPool AvgPool Relu6 ArgMin:ArgMinD LogSoftmax:LogSoftmaxV2"),
    # More vector operators.
    **_rows(
        AICORE,
        BOTH,
        "Log Log1p Expm1 Pow Ceil Rint Sign Reciprocal Inv Softplus Softsign Selu Erf Erfc Sin Cos Tan Asin Acos Atan "
        "Sinh Cosh Asinh Acosh Atanh SquaredDifference TruncateDiv Mod:Mod TruncateMod Xdivy Xlogy MulNoNan",
    ),
    **_rows(AICORE, BOTH, "LRN L2Loss Cumsum:CumsumD All:ReduceAllD Any:ReduceAnyD AccumulateNV2"),
    # More operators that move values.
    **_rows(
        AICORE,
        BOTH,
        "Concat:ConcatD SpaceToBatchND:SpaceToBatchNDD BatchToSpaceND:BatchToSpaceNDD SpaceToBatch:SpaceToBatchD "
        "BatchToSpace:BatchToSpaceD DepthToSpace SpaceToDepth ReverseV2:ReverseV2D TopKV2:TopKV2D "
        "MatrixDiag:MatrixDiagD "
        "InvertPermutation",
    ),
    # The AI CPU runs TensorFlow's own kernels; a node without its own type in the device's language is a FrameworkOp.
    **_rows(
        AICPU,
        SINGLE,
        "RandomStandardNormal:FrameworkOp RandomUniform:FrameworkOp TruncatedNormal:FrameworkOp "
        "RandomUniformInt:FrameworkOp",
    ),
    **_rows(
        AICPU,
        SINGLE,
        "IsFinite IsInf IsNan MirrorPad TensorArrayV3:TensorArray TensorArraySizeV3:TensorArraySize "
        "TensorArrayReadV3:TensorArrayRead TensorArrayWriteV3:TensorArrayWrite "
        "TensorArrayScatterV3:TensorArrayScatter TensorArrayGatherV3:TensorArrayGather",
    ),
}

_BY_GE_TYPE = {row.ge_type: row for row in OPS.values()}


def support_of(ge_type: str) -> Optional[OpSupport]:
    """The row of a GE operator type, or None if the 910 has no kernel for it."""
    return _BY_GE_TYPE.get(ge_type)
