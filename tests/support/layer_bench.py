# SPDX-License-Identifier: Apache-2.0
"""A small registration graph with a textbook warp, compiled by the simulated ATC, and a NumPy stand-in for its
TensorFlow process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.layers.analysis import Analysis, AnalysisOptions
from om_runner.layers.device import Device
from om_runner.layers.golden import GoldenStore
from om_runner.layers.judge import LayerResult
from om_runner.layers.matching import GoldenGraph, held_tensors, layers_of
from tests.support.graphs import PbBuilder, compile_pb
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.formats.om import OmModel, read_om
from vxm_convert.formats.tf_graph import TfNode, read_graph
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.model.spec import ModelSpec
from vxm_convert.sim.compiler.compile import write_model
from vxm_convert.toolchain.find import find_toolchain

SIDE = 16
COUNT = SIDE**3


def graph(batch: int = 1, scale: float = 1.0, mesh: bool = False) -> PbBuilder:
    """difference → two products → shift; moved = moving shifted by it, sampled with linear interpolation along the last
    axis of memory.

    Parameters
    ----------
    scale : float — the first product multiplies by 8 · scale, the second divides by as much.
    mesh : bool — whether the warp adds the shift to absolute positions (the textbook form) or keeps integer base and
        fraction apart.
    """
    pb = PbBuilder()
    shape = (batch, SIDE, SIDE, SIDE, 1)
    moving, fixed = pb.placeholder("moving", shape), pb.placeholder("fixed", shape)

    def number(name: str, value: Any, dtype: Any = np.float32) -> str:
        return pb.const(name, np.array(value, dtype))

    diff = pb.node("Sub", "net/diff", fixed, moving, T=np.dtype(np.float32))
    one = pb.node("Mul", "net/one", diff, number("net/w1", 8.0 * scale), T=np.dtype(np.float32))
    shift = pb.node("Mul", "net/two", one, number("net/w2", 0.075 / scale), T=np.dtype(np.float32))
    pb.node(
        "ConcatV2",
        "net/all",
        shift,
        shift,
        shift,
        number("net/axis", -1, np.int32),
        N=3,
        T=np.dtype(np.float32),
        Tidx=np.dtype(np.int32),
    )
    pb.node("Identity", "flow_field", "net/all", T=np.dtype(np.float32))
    _warp(pb, moving, shift, batch, mesh, number)
    return pb


def _warp(pb: PbBuilder, moving: str, shift: str, batch: int, mesh: bool, number: Callable[..., str]) -> None:
    single, whole = {"T": np.dtype(np.float32)}, {"T": np.dtype(np.int32)}
    total = batch * COUNT
    flat = number("warp/flat", [total], np.int32)
    u = pb.node("Reshape", "warp/u", shift, flat, Tshape=np.dtype(np.int32), **single)
    grid = np.arange(total)
    if mesh:
        position = pb.node("Add", "warp/position", pb.const("warp/mesh", grid.astype(np.float32)), u, **single)
        floor = pb.node("Floor", "warp/floor", position, **single)
        base = pb.node("Cast", "warp/base", floor, SrcT=np.dtype(np.float32), DstT=np.dtype(np.int32))
        part = pb.node("Sub", "warp/part", position, floor, **single)
    else:
        floor = pb.node("Floor", "warp/floor", u, **single)
        step = pb.node("Cast", "warp/step", floor, SrcT=np.dtype(np.float32), DstT=np.dtype(np.int32))
        base = pb.node("AddV2", "warp/base", pb.const("warp/mesh", grid.astype(np.int32)), step, **whole)
        part = pb.node("Sub", "warp/part", u, floor, **single)
    table = pb.node("Reshape", "warp/table", moving, flat, Tshape=np.dtype(np.int32), **single)
    ends = []
    for k in range(2):
        at = pb.node("AddV2", f"warp/at{k}", base, number(f"warp/k{k}", k, np.int32), **whole)
        low = pb.node("Maximum", f"warp/low{k}", at, number(f"warp/zero{k}", 0, np.int32), **whole)
        index = pb.node("Minimum", f"warp/index{k}", low, number(f"warp/last{k}", total - 1, np.int32), **whole)
        ends.append(
            pb.node(
                "GatherV2",
                f"warp/take{k}",
                table,
                index,
                number(f"warp/axis{k}", 0, np.int32),
                Tparams=np.dtype(np.float32),
                Tindices=np.dtype(np.int32),
                Taxis=np.dtype(np.int32),
            )
        )
    step = pb.node("Sub", "warp/step_of_values", ends[1], ends[0], **single)
    mix = pb.node("AddV2", "warp/mix", ends[0], pb.node("Mul", "warp/weighted", part, step, **single), **single)
    pb.node(
        "Reshape",
        "warp/out",
        mix,
        pb.const("warp/shape", np.array([batch, SIDE, SIDE, SIDE, 1], np.int32)),
        Tshape=np.dtype(np.int32),
        **single,
    )
    pb.node("Identity", "moved", "warp/out", **single)


@dataclass
class Bench:
    """An exported model in a folder, its scans, and runs of the analysis over it."""

    folder: Path
    model: OfflineModel
    feeds: Dict[str, np.ndarray]

    @property
    def om(self) -> OmModel:
        return read_om(self.model.om_path)

    def analyse(
        self, acl: Any, dump: Any = None, single: bool = True, effect: bool = True, limit_bytes: int = 6 << 30
    ) -> List[LayerResult]:
        """All layers with the NumPy reference; leaves no file behind."""
        nodes = read_graph(self.model.pb_path)
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        known = GoldenGraph(nodes)
        golden = GoldenStore(work, NumpyReference(nodes, work), known)
        for meaning, array in self.feeds.items():
            golden.put(f"{meaning}:0", array)
        om = self.om
        layers = layers_of(om.graph, om.attrs, self.model.contract, known)
        device = Device(acl, self.model, om.name, 0, self.feeds, work)
        options = AnalysisOptions(work, limit_bytes, single, effect, dump)
        return Analysis(self.model, layers, held_tensors(om.graph, layers), known, golden, device, options).run()

    def rewrite(self, change: Callable[[OmModel], None]) -> None:
        """Change the offline model behind the back of the graph, and let the contract know the new file."""
        om = self.om
        change(om)
        write_model(self.model.om_path, om.model)
        self.model = _with_contract(self.folder, self.model.contract)


def make(folder: Path, mode: str = "force_fp16", keep: Sequence[str] = (), batch: int = 1, **options: Any) -> Bench:
    """Build, compile, and draw two images with values in 0..4."""
    folder.mkdir(parents=True, exist_ok=True)
    graph(batch, **options).save(folder / "frozen.pb")
    compile_pb(folder / "frozen.pb", folder / "vxm.om", [("moved", 0), ("flow_field", 0)], mode, keep)
    spec = ModelSpec("vm2", (SIDE, SIDE, SIDE), batch)
    contract = GraphContract(
        model=spec,
        inputs=(TensorSpec("moving", "moving", 0, spec.image_shape), TensorSpec("fixed", "fixed", 0, spec.image_shape)),
        outputs=(
            TensorSpec("moved", "moved", 0, spec.image_shape),
            TensorSpec("flow", "flow_field", 0, spec.flow_shape),
        ),
        precision=PrecisionPlan("test", mode, tuple(keep)),
        soc_version="Ascend910A",
        hashes={},
    )
    rng = np.random.RandomState(3)
    feeds = {name: 4 * rng.rand(*spec.image_shape).astype(np.float32) for name in ("moving", "fixed")}
    return Bench(folder, _with_contract(folder, contract), feeds)


def _with_contract(folder: Path, contract: GraphContract) -> OfflineModel:
    from dataclasses import replace

    hashes = {"om": sha256_of(folder / "vxm.om"), "frozen_pb": sha256_of(folder / "frozen.pb")}
    contract = replace(contract, hashes=hashes)
    contract.save(folder / "contract.json")
    return OfflineModel(folder / "vxm.om", folder / "contract.json", contract, find_toolchain("sim"), True)


class NumpyReference:
    """What ReferenceProcess.run_tensors does, for the few operators of `graph`."""

    def __init__(self, nodes: Sequence[TfNode], work: Path) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._work = work

    def run_tensors(self, feeds: Dict[str, str], fetches: Dict[str, str]) -> float:
        values = {name: np.load(str(self._work / file)) for name, file in feeds.items()}
        for name, file in fetches.items():
            np.save(str(self._work / file), self._value(name, values))
        return 0.0

    def _value(self, tensor: str, values: Dict[str, np.ndarray]) -> np.ndarray:
        tensor = tensor if ":" in tensor else tensor + ":0"
        if tensor not in values:
            node = self._nodes[tensor.rpartition(":")[0]]
            values[tensor] = OPERATORS[node.op](node, [self._value(source, values) for source in node.inputs])
        return values[tensor]


def _cast(node: TfNode, args: List[np.ndarray]) -> np.ndarray:
    return args[0].astype(node.attrs["DstT"])


OPERATORS: Dict[str, Callable[[TfNode, List[np.ndarray]], np.ndarray]] = {
    "Const": lambda n, a: n.attrs["value"],
    "Identity": lambda n, a: a[0],
    "Sub": lambda n, a: a[0] - a[1],
    "Cast": _cast,
    "Add": lambda n, a: a[0] + a[1],
    "AddV2": lambda n, a: a[0] + a[1],
    "Mul": lambda n, a: a[0] * a[1],
    "Floor": lambda n, a: np.floor(a[0]),
    "ConcatV2": lambda n, a: np.concatenate(a[:-1], int(a[-1])),
    "Reshape": lambda n, a: a[0].reshape(a[1]),
    "Maximum": lambda n, a: np.maximum(*a),
    "Minimum": lambda n, a: np.minimum(*a),
    "GatherV2": lambda n, a: np.take(a[0], a[1], int(a[2])),
}


def by_name(results: Sequence[LayerResult]) -> Dict[Tuple[str, int], LayerResult]:
    return {(result.layer.op, result.layer.output): result for result in results}
