# SPDX-License-Identifier: Apache-2.0
"""Offline models for several shapes ("gears"): where MODEL_DEF lists them, and their rules.

The first graph is the model's interface (each tensor as large as in its largest gear) with one Case node; each gear is
a separate graph, which the Case node names. ``ascend_mbatch_shape_data``, an input after the model's own, selects the
gear. Names of nodes and attributes follow the open GE sources (multi-batch pass); **the layout was not checked against
a real file with gears**, so a real file that does not fit is read without its gears.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple

from vxm_convert.errors import FormatError
from vxm_convert.formats.ge_ir import Model, Op

SHAPE_DATA = "ascend_mbatch_shape_data"
SHAPE_CONST = "ascend_mbatch_shape_const"
MAP_INDEX = "ascend_mbatch_shape_mapindex"
CASE = "ascend_mbatch_shape_case"
#: suffix of the name of every node of a gear, before the gear's number
POSTFIX = "_ascend_mbatch_batch_"
#: of the Case node: number of gears, kind, profile of each gear (``_pred_value_<gear>``), inputs in the user's order
BATCH_NUM, KIND, PROFILE, ORDER = "_batch_num", "_dynamic_type", "_pred_value_", "_user_designate_shape_order"
#: of Data: its shape with -1 for each side that a gear sets; of NetOutput: "gear,output,side,side…" for each gear and
#: output
ORIGIN_DIMS, OUTPUT_DIMS = "_mbatch_origin_input_dims", "_dynamic_output_dims"
BATCH, IMAGE, DIMS = 1, 2, 3
#: kind → ATC's flag
FLAGS = {BATCH: "dynamic_batch_size", IMAGE: "dynamic_image_size", DIMS: "dynamic_dims"}
MAX_GEARS = 100
_MAX_SIDE = (1 << 31) - 1

Shape = Tuple[int, ...]
Shapes = Dict[str, Shape]


@dataclass(frozen=True)
class Gears:
    """The gears of a model.

    Parameters
    ----------
    kind : int — BATCH, IMAGE or DIMS.
    profiles : tuple of tuple of int — the numbers of each gear: (batch,), (height, width), or one per side of -1.
    declared : dict — input → shape with -1 for each side that the gear sets, in the model's order.
    order : tuple of str — inputs in the user's order, which is the order of a profile's numbers.
    outputs : tuple — per gear the shapes of all outputs.
    graphs : tuple of str — the branch of each gear.
    """

    kind: int
    profiles: Tuple[Shape, ...]
    declared: Shapes
    order: Tuple[str, ...]
    outputs: Tuple[Tuple[Shape, ...], ...]
    graphs: Tuple[str, ...]

    @property
    def text(self) -> str:
        """As on ATC's command line: ``dynamic_batch_size 1,2,4``."""
        joint = "," if self.kind == BATCH else ";"
        return f"{FLAGS[self.kind]} " + joint.join(",".join(map(str, profile)) for profile in self.profiles)

    def shapes(self, gear: int) -> Shapes:
        """Shapes of the model's own inputs."""
        return filled(self.declared, self.order, self.kind, self.profiles[gear])

    def flat_dims(self, gear: int) -> List[int]:
        """All sides of all inputs, in the user's order, as pyACL lists and sets them."""
        shapes = self.shapes(gear)
        return [side for name in self.order for side in shapes[name]]


def filled(declared: Mapping[str, Shape], order: Sequence[str], kind: int, profile: Shape) -> Shapes:
    """Shapes with a gear's numbers in place of -1; raises ValueError if numbers and sides do not match."""
    result = dict(declared)
    numbers = list(profile)
    for name in order:
        open_sides = declared[name].count(-1)
        if kind != DIMS and open_sides:
            numbers = list(profile)
        if open_sides > len(numbers):
            raise ValueError(f"{profile} has too few numbers for the shape {declared[name]} of {name}")
        taken = iter(numbers[:open_sides])
        result[name] = tuple(next(taken) if side == -1 else side for side in declared[name])
        numbers = numbers[open_sides:]
    if numbers:
        raise ValueError(f"{profile} has more numbers than there are sides of -1")
    return result


def largest(shapes: Sequence[Shape]) -> Shape:
    """The shape with the most elements, or the first of several."""
    return max(shapes, key=count_of)


def count_of(shape: Shape) -> int:
    """Number of elements of a tensor; Python's integers do not overflow."""
    total = 1
    for side in shape:
        total *= side
    return total


def profiles_text(case_attrs: Mapping[str, Any]) -> str:
    """The gears in a Case node's attributes, unchecked, for display; empty if there are none."""
    kind, count = case_attrs.get(KIND), case_attrs.get(BATCH_NUM)
    if kind not in FLAGS or not isinstance(count, int) or not 0 < count <= MAX_GEARS:
        return ""
    profiles = [case_attrs.get(f"{PROFILE}{gear}") for gear in range(count)]
    shown = [",".join(map(str, profile)) if isinstance(profile, list) else "?" for profile in profiles]
    return f"{FLAGS[kind]}[{(',' if kind == BATCH else ';').join(shown)}]"


def read_gears(model: Model, where: str) -> Optional[Gears]:
    """The gears of a model, or None; raises FormatError if its graphs and attributes do not agree."""
    cases = [op for op in model.ops if op.type == "Case" and BATCH_NUM in op.attrs]
    if not cases:
        return None
    if len(cases) > 1:
        raise FormatError(f"{where}: {len(cases)} Case nodes choose gears, expected 1")
    return _Reader(model, cases[0], where).read()


class _Reader:
    def __init__(self, model: Model, case: Op, where: str) -> None:
        self.model = model
        self.case = case
        self.where = where

    def read(self) -> Gears:
        kind, profiles = self._profiles()
        declared = self._declared(len(profiles[0]))
        order = self._order(declared)
        branches = [self.model.branches[name] for name in self.case.subgraphs]
        outputs = tuple(self._outputs(gear, ops) for gear, ops in enumerate(branches))
        found = Gears(kind, profiles, declared, order, outputs, tuple(self.case.subgraphs))
        try:
            shapes = [found.shapes(gear) for gear in range(len(profiles))]
        except ValueError as exc:
            self._refuse(str(exc))
        for gear, ops in enumerate(branches):
            self._check_inputs(gear, ops, shapes[gear])
        self._check_edge(shapes, outputs)
        return found

    def _refuse(self, text: str) -> NoReturn:
        raise FormatError(f"{self.where}: gears: {text}; compile the model again")

    def _ints(self, op: Op, key: str) -> Tuple[int, ...]:
        value = op.attrs.get(key)
        if not isinstance(value, list) or not all(type(entry) is int for entry in value):
            self._refuse(f"attribute {key} of {op.name!r} is not a list of whole numbers")
        return tuple(value)

    def _profiles(self) -> Tuple[int, Tuple[Shape, ...]]:
        count, kind = self.case.attrs[BATCH_NUM], self.case.attrs.get(KIND)
        if type(count) is not int or not 1 <= count <= MAX_GEARS or count != len(self.case.subgraphs):
            self._refuse(
                f"{count} are announced for {len(self.case.subgraphs)} graphs, expected 1 to {MAX_GEARS} and as many "
                "graphs"
            )
        if type(kind) is not int or kind not in FLAGS:
            self._refuse(f"kind {kind}, expected one of {sorted(FLAGS)}")
        profiles = tuple(self._ints(self.case, f"{PROFILE}{gear}") for gear in range(count))
        length = {BATCH: 1, IMAGE: 2}.get(kind, len(profiles[0]))
        for profile in profiles:
            if not profile or len(profile) != length or not all(0 < number <= _MAX_SIDE for number in profile):
                self._refuse(f"profile {profile}, expected {length} numbers above 0")
        if len(set(profiles)) != count:
            self._refuse(f"a profile is repeated in {profiles}")
        return kind, profiles

    def _declared(self, numbers: int) -> Shapes:
        """The model's own inputs with their shapes; checks the input that selects the gear."""
        data = [op for op in self.model.ops if op.type == "Data"]
        if [op.attrs.get("index") for op in data] != list(range(len(data))) or not all(
            len(op.output_descs) == 1 for op in data
        ):
            self._refuse("the inputs are not numbered from 0 in order, or one of them does not have exactly one output")
        if len(data) < 2 or data[-1].name != SHAPE_DATA:
            self._refuse(f"the last input is not {SHAPE_DATA}")
        picks = data[-1].output_descs[0]
        if (picks.dtype, picks.shape) != ("int32", (numbers,)):
            self._refuse(f"{SHAPE_DATA} is {picks.dtype} {picks.shape}, expected int32 {(numbers,)}")
        declared = {op.name: self._ints(op, ORIGIN_DIMS) for op in data[:-1]}
        if not all(side == -1 or 0 < side <= _MAX_SIDE for shape in declared.values() for side in shape):
            self._refuse(f"input shapes {declared}, expected -1 or sides above 0")
        return declared

    def _order(self, declared: Shapes) -> Tuple[str, ...]:
        order = self.case.attrs.get(ORDER)
        if not isinstance(order, list) or sorted(map(str, order)) != sorted(declared):
            self._refuse(f"attribute {ORDER} is {order}, expected the inputs {', '.join(declared)}")
        return tuple(order)

    def _check_inputs(self, gear: int, ops: List[Op], shapes: Shapes) -> None:
        """Check that a gear's graph takes the model's own inputs, in their order and with the gear's shapes."""
        data = [op for op in ops if op.type == "Data"]
        root = [op.output_descs[0] for op in self.model.ops if op.type == "Data"][:-1]
        taken = [(op.attrs.get("index"), [(desc.dtype, desc.logical_shape) for desc in op.output_descs]) for op in data]
        if taken != [(i, [(desc.dtype, shape)]) for i, (desc, shape) in enumerate(zip(root, shapes.values()))]:
            self._refuse(f"the graph of gear {gear} takes {taken}, expected the shapes {shapes} of the model's inputs")

    def _outputs(self, gear: int, ops: List[Op]) -> Tuple[Shape, ...]:
        last = self.model.ops[-1]
        if not ops or ops[-1].type != "NetOutput" or last.type != "NetOutput":
            self._refuse(f"the model's graph or that of gear {gear} does not end in NetOutput")
        if [desc.dtype for desc in ops[-1].output_descs] != [desc.dtype for desc in last.output_descs]:
            self._refuse(f"the outputs of gear {gear} differ from those of the model")
        return tuple(desc.logical_shape for desc in ops[-1].output_descs)

    def _check_edge(self, shapes: List[Shapes], outputs: Tuple[Tuple[Shape, ...], ...]) -> None:
        """Check that each input and output is as large as in its largest gear, and that NetOutput lists its shapes."""
        last = self.model.ops[-1]
        wanted = output_dims(outputs)
        if last.attrs.get(OUTPUT_DIMS) != wanted:
            self._refuse(f"attribute {OUTPUT_DIMS} is {last.attrs.get(OUTPUT_DIMS)}, expected {wanted} from its graphs")
        names = self.model.attrs.get("attr_model_out_nodes_name")
        if not isinstance(names, list) or len(names) != len(last.output_descs):
            self._refuse(f"{names} outputs are named, the graphs have {len(last.output_descs)}")
        for op in self.model.ops:
            if op.type == "Data" and op.name != SHAPE_DATA:
                self._check_largest(op.name, op.output_descs[0].logical_shape, [gear[op.name] for gear in shapes])
        for number, desc in enumerate(last.output_descs):
            self._check_largest(f"output {number}", desc.logical_shape, [gear[number] for gear in outputs])

    def _check_largest(self, name: str, shape: Shape, of_gears: List[Shape]) -> None:
        if shape != largest(of_gears):
            self._refuse(f"{name} has shape {shape}, its largest gear {largest(of_gears)}")


def output_dims(outputs: Sequence[Sequence[Shape]]) -> List[str]:
    """Value of `OUTPUT_DIMS` for the outputs' shapes of each gear."""
    return [
        ",".join(map(str, (gear, index) + tuple(shape)))
        for gear, shapes in enumerate(outputs)
        for index, shape in enumerate(shapes)
    ]
