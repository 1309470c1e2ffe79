# SPDX-License-Identifier: Apache-2.0
"""Analyses the layers of a model group by group: golden tensors, dumps, single layers, figures. Keeps one group at a
time.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, List, Optional, Sequence, Tuple

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.layers.device import Device, operators_of, remove
from om_runner.layers.dumpfiles import dumped_tensor, index_dumps
from om_runner.layers.golden import GoldenStore, last_uses
from om_runner.layers.isolated import CutModel, compile_cut, fresh_folder
from om_runner.layers.judge import EUCLID, LayerResult
from om_runner.layers.matching import NET_OUTPUT, GoldenGraph, Layer, in_groups
from om_runner.layers.tensor_errors import figures, flips, overflow
from vxm_convert.formats.dump import read_dump
from vxm_convert.formats.ge_ir import Desc

LOG = logging.getLogger(__name__)

#: share of the memory limit that the tensors of a group may take: the engines need several copies of each
_GROUP_SHARE = 6
#: layers that engines compute on reordered copies of their operands
_CUBE = "Conv3D Conv2D MatMulV2 BatchMatMulV2".split()
#: bytes of an engine per element of a layer's (inputs, output) when the layer runs alone, with fp32 forms and inner
#: copies
_ENGINE = (4, 8)
_ENGINE_CUBE = (9, 12)
#: share of the limit that remains for them beside interpreter, engine and the waiting TensorFlow process
_FREE = 7 / 8
_COMPARED = "Less LessEqual Greater GreaterEqual Equal NotEqual".split()
_HALF = ("Round", "Rint")
_INTEGER = ("Floor", "Ceil", "Cast")


@dataclass(frozen=True)
class AnalysisOptions:
    """How a model is analysed.

    Parameters
    ----------
    work : Path — folder for temporary files.
    limit_bytes : int — memory that may be used.
    single, effect : bool — whether to compute single errors, and their effect on the model's outputs.
    dump : Path or None — folder of a dump made elsewhere.
    """

    work: Path
    limit_bytes: int
    single: bool = True
    effect: bool = True
    dump: Optional[Path] = None


class Analysis:
    """One model, one pair of scans.

    Parameters
    ----------
    layers : list of Layer — in execution order.
    held : dict — golden tensor → its form on the device.
    golden : GoldenStore — already has the model's inputs.
    device : Device or None — None if the dump was made elsewhere and no single errors are requested.
    options : AnalysisOptions
    """

    def __init__(
        self,
        model: OfflineModel,
        layers: Sequence[Layer],
        held: Dict[str, Desc],
        graph: GoldenGraph,
        golden: GoldenStore,
        device: Optional[Device],
        options: AnalysisOptions,
    ) -> None:
        self._model = model
        self._layers = list(layers)
        self._held = held
        self._graph = graph
        self._golden = golden
        self._device = device
        self._dump = options.dump
        self._single = options.single
        self._effect = options.effect
        self._budget = max(1, options.limit_bytes // _GROUP_SHARE)
        self._limit = options.limit_bytes
        self._work = options.work
        self._inputs: FrozenSet[str] = golden.kept
        self._outputs: Dict[str, np.ndarray] = {}
        self._cuts = 0

    def run(self) -> List[LayerResult]:
        """Figures of every layer, in execution order.

        Raises
        ------
        VxmError
            For a dump that is damaged or of another model, a failing device or compiler, or a reference that cannot be
            computed.
        """
        results = [LayerResult(layer, reason=layer.reason) for layer in self._layers]
        last = last_uses(self._layers, self._graph, self._inputs)
        if self._single and self._effect:
            self._outputs = self._model_outputs({})
        files = None if self._dump is None else index_dumps(self._dump, self._layers)
        position = 0
        for whole in in_groups(self._layers, [_dumped_bytes(layer) for layer in self._layers], self._budget):
            made = self._dumped(whole) if files is None else None
            there = index_dumps(made, self._layers, some=False) if made is not None else files or {}
            for group in in_groups(whole, [self._bytes_around(layer) for layer in whole], self._budget):
                self._one_group(results[position : position + len(group)], there)
                position += len(group)
                for tensor in [tensor for tensor, use in last.items() if use < position and tensor not in self._inputs]:
                    self._golden.drop(tensor)
                    del last[tensor]
            if made is not None:
                remove(made.parent)
        return results

    def _dumped(self, group: Sequence[Layer]) -> Optional[Path]:
        """Folder of the dump files of a group; tensors that belong to no node of the graph are neither compared nor
        dumped.
        """
        wanted = operators_of([layer for layer in group if layer.golden is not None])
        LOG.info(
            "dumping %d of %d operators, the last of them %s",
            len(wanted),
            len(operators_of(self._layers)),
            group[-1].op,
        )
        return self._device.dump(wanted) if wanted and self._device is not None else None

    def _one_group(self, results: Sequence[LayerResult], files: Dict[str, Path]) -> None:
        for result in results:
            if result.layer.golden is not None:
                self._golden.compute(result.layer.golden)
                self._entire(result, files.get(result.layer.op))
        alone = [result for result in results if result.layer.golden is not None and result.layer.type != NET_OUTPUT]
        if self._single:
            self._singles([result for result in alone if self._fits(result)])

    # entire -------------------------------------------------------------------------------------------------
    def _entire(self, result: LayerResult, path: Optional[Path]) -> None:
        layer, golden = result.layer, self._golden.get(str(result.layer.golden))
        result.golden_dtype = golden.dtype.name
        if path is None:
            result.reason = "no dump file of this operator"
            return
        device = dumped_tensor(read_dump(path), layer, str(path))
        if device.shape != golden.shape or not device.size:
            result.reason = f"shape {device.shape} on the device, {golden.shape} in TensorFlow"
            return
        result.entire = figures(device, golden)
        result.overflow = overflow(device)
        result.reason = result.entire["reason"]
        if layer.jumps:
            result.flip_rate, result.boundary_distance = flips(device, golden, self._boundary(layer))

    def _boundary(self, layer: Layer) -> Optional[Tuple[str, np.ndarray, np.ndarray]]:
        """The operands for the distance of golden inputs from the steps of a discontinuous layer."""
        operands = [self._golden.get(name) for name in layer.inputs if name in self._golden.kept]
        if len(operands) != len(layer.inputs) or any(o.size != layer.elements or o.dtype.kind != "f" for o in operands):
            return None
        if layer.type in _INTEGER + _HALF and len(operands) == 1:
            return ("half" if layer.type in _HALF else "integer", operands[0], operands[0])
        return ("equal", operands[0], operands[1]) if layer.type in _COMPARED and len(operands) == 2 else None

    # single -------------------------------------------------------------------------------------------------
    def _fits(self, result: LayerResult) -> bool:
        """Whether a layer can run alone within the limit; otherwise notes it in its row."""
        need = self._bytes_alone(result.layer)
        if need <= _FREE * self._limit:
            return True
        gib = float(1 << 30)
        result.reason = (
            result.reason
            or f"no single error: needs about {need / gib / _FREE:.1f} GiB, the limit is {self._limit / gib:.1f}"
        )
        return False

    def _singles(self, results: Sequence[LayerResult]) -> None:
        if not results:
            return
        self._cuts += 1
        folder = fresh_folder(self._work, f"cut{self._cuts:04d}")
        known = self._golden.kept
        try:
            group = [result.layer for result in results]
            cut = compile_cut(
                group,
                self._model.pb_path,
                self._graph,
                known,
                self._held,
                self._model.contract,
                self._model.toolchain,
                folder,
            )
            by_layer = {(result.layer.op, result.layer.output): result for result in results}
            for result in results:
                if result.layer.golden in cut.refused and not result.reason:
                    result.reason = f"no single error: {cut.refused[result.layer.golden]}"
            if cut.layers:
                self._compare_singles(cut, by_layer, known)
        finally:
            remove(folder)

    def _compare_singles(
        self, cut: CutModel, by_layer: Dict[Tuple[str, int], LayerResult], known: FrozenSet[str]
    ) -> None:
        if self._device is None:
            raise RuntimeError("single errors need a device")
        outputs = self._device.run_cut(cut, self._golden)
        for layer in cut.layers:
            name = str(layer.golden)
            device, golden = outputs[name], self._golden.get(name)
            feeds, _ = self._graph.behind(name, known)
            rounded = [feed for feed in feeds if self._held[feed].dtype == "float16"]
            expected = golden
            if rounded:
                files = {feed: self._golden.save_held(feed, "float16") for feed in rounded}
                expected = self._golden.variants([name], files, known)[0]
            result = by_layer[layer.op, layer.output]
            if device.shape != expected.shape or not device.size:
                result.reason = (
                    result.reason or f"no single error: shape {device.shape} alone, {expected.shape} in TensorFlow"
                )
                continue
            result.single = figures(device, expected)
            if layer.jumps:
                result.single_flip_rate = flips(device, expected, None)[0]
            wrong = result.single[EUCLID]
            if self._effect and not layer.jumps and 0 < wrong and math.isfinite(wrong):
                result.effect = self._effect_of(name, golden, device, expected)

    def _effect_of(self, name: str, golden: np.ndarray, device: np.ndarray, expected: np.ndarray) -> Dict[str, float]:
        """Relative Euclidean distance of every model output if this layer's own error is the only one."""
        injected = self._golden.save_made(golden, lambda g, d, e: g + (d - e), device, expected)
        outputs = self._model_outputs({name: injected})
        for spec in self._model.contract.outputs:
            if spec.tensor_name == name:
                outputs[spec.meaning] = golden + (device - expected)
        return {meaning: float(figures(outputs[meaning], self._outputs[meaning])[EUCLID]) for meaning in outputs}

    def _model_outputs(self, replaced: Dict[str, str]) -> Dict[str, np.ndarray]:
        specs = [spec for spec in self._model.contract.outputs if spec.tensor_name not in replaced]
        arrays = self._golden.variants([spec.tensor_name for spec in specs], replaced, self._inputs) if specs else []
        return {spec.meaning: array for spec, array in zip(specs, arrays)}

    def _bytes_alone(self, layer: Layer) -> int:
        """Memory for running a layer alone: the engine's, and every tensor on the host and on the device.

        At 160x192x224 in fp16 this is 4.4 GiB for the concatenation to 34 channels (measured 4.6), 4.5 for the
        convolution of these (4.5) and 3.0 for one of 16 channels (2.5).
        """
        inside, outside = _ENGINE_CUBE if layer.type in _CUBE else _ENGINE
        inputs = [self._held[name] for name in layer.inputs if name in self._held]
        total = sum((inside + 2 * np.dtype(desc.dtype).itemsize) * _count(desc.logical_shape) for desc in inputs)
        return int(total + (outside + 2 * np.dtype(layer.desc.dtype).itemsize) * layer.elements)

    def _bytes_around(self, layer: Layer) -> int:
        """Bytes of its inputs and output in fp32, as far as they are used."""
        if layer.golden is None or not self._single:
            return _dumped_bytes(layer)
        inputs = sum(4 * _count(self._held[name].logical_shape) for name in layer.inputs if name in self._held)
        return inputs + _stored_bytes(layer)


def _dumped_bytes(layer: Layer) -> int:
    return 0 if layer.golden is None else _stored_bytes(layer)


def _stored_bytes(layer: Layer) -> int:
    return max(layer.desc.nbytes, 4 * layer.elements)


def _count(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
