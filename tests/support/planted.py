# SPDX-License-Identifier: Apache-2.0
"""Graphs with planted faults of fp16, judged by compiling and running every candidate on the simulated device."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Dict, FrozenSet, List, Tuple

import numpy as np

from export.preflight.view.graph import read_view
from export.tune.cost import RESULT, GraphCost, keep_of, results_of
from export.tune.search import Group
from export.tune.trials import Verdict
from tests.support.graphs import PbBuilder, compile_pb, conv_attrs
from vxm_convert.sim.engine.load import load_program

LIMIT = 1e-3


class Planted:
    """A graph `x` → `out`, an oracle over decisions (largest error of the simulated device) and the cost of keeping
    them.
    """

    def __init__(self, pb: PbBuilder, groups: List[str], x: np.ndarray, expected: np.ndarray, folder: Path) -> None:
        self.path = pb.save(folder / "planted.pb")
        self.folder = folder
        self.groups = [Group(names, tuple(names.split())) for names in groups]
        self.x, self.expected = x, expected
        self.cost = GraphCost(read_view(self.path, ["out:0"]), "force_fp16")
        self.asked: Dict[FrozenSet[str], Verdict] = {}

    def oracle(self, atoms: FrozenSet[str]) -> Verdict:
        if atoms not in self.asked:
            om, outputs = self.folder / "planted.om", [("out", 0)]
            model = compile_pb(self.path, om, outputs, "force_fp16", keep_of(atoms), results_of(atoms))
            out = load_program(model).run([self.x])[0].astype(np.float64)
            error = float(np.abs(out.reshape(self.expected.shape) - self.expected).max())
            self.asked[atoms] = Verdict(error <= LIMIT, (LIMIT - error) / LIMIT, f"error {error:.3g}")
        return self.asked[atoms]

    def brute_force(self) -> Tuple[FrozenSet[str], Dict[FrozenSet[str], Verdict]]:
        """The cheapest accepted set of all there are, and every verdict."""
        chosen = [picked for size in range(len(self.groups) + 1) for picked in combinations(self.groups, size)]
        every = [frozenset(atom for group in picked for atom in group.atoms) for picked in chosen]
        verdicts = {atoms: self.oracle(atoms) for atoms in every}
        accepted = [atoms for atoms in every if verdicts[atoms].accepted]
        return min(accepted, key=lambda atoms: (self.cost(atoms), len(atoms))), verdicts


def _values(shape: Tuple[int, ...]) -> np.ndarray:
    """Exact in fp16, so that only what the graph does can go wrong."""
    return np.random.RandomState(3).uniform(0.5, 2, shape).astype(np.float16).astype(np.float32)


def _lift(pb: PbBuilder, name: str, source: str, offset: float) -> str:
    """+ offset and − offset: fp16 loses the low bits of `source` unless both stay in fp32."""
    constant = pb.const(f"{name}/offset", np.array(offset, np.float32))
    return pb.node("Sub", f"{name}_down", pb.node("Add", f"{name}_up", source, constant), constant)


def two_islands(folder: Path) -> Planted:
    """Two pairs that need fp32, harmless nodes before and between them: no prefix of the graph is the answer, and no
    single region.
    """
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 64))
    net = pb.node("Neg", "b1", pb.node("Neg", "b0", x))
    net = _lift(pb, "first", net, 1000.0)
    net = pb.node("Sub", "m1", pb.node("Add", "m0", net, x), x)
    net = _lift(pb, "second", net, 2000.0)
    pb.node("Add", "out", net, x)
    value = _values((1, 64))
    groups = ["b0 b1", "first_up", "first_down", "m0 m1", "second_up", "second_down"]
    return Planted(pb, groups, value, 2 * value.astype(np.float64), folder)


def worse_with_more(folder: Path) -> Planted:
    """`gap` is 0 as long as both its operands are rounded alike; the convolution's always is, for it has no fp32
    operands.

    So fp32 for `scaled` and `gap` makes the result wrong, and keeping everything is no solution. The lift needs fp32.
    """
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 2, 2, 2, 16))
    scaled = pb.node("Mul", "scaled", x, pb.const("factor", np.array(1 + 2**-9 + 2**-10, np.float32)))
    eye = np.eye(16, dtype=np.float32).reshape(1, 1, 1, 16, 16)
    conv = pb.node("Conv3D", "conv", scaled, pb.const("eye", eye), **conv_attrs())
    gap = pb.node("Mul", "wide", pb.node("Sub", "gap", scaled, conv), pb.const("gain", np.array(64, np.float32)))
    pb.node("Add", "out", gap, _lift(pb, "lift", x, 1500.0))
    value = _values((1, 2, 2, 2, 16))
    return Planted(
        pb, ["scaled", RESULT + "conv", "gap", "wide", "lift_up", "lift_down"], value, value.astype(np.float64), folder
    )
