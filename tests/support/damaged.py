# SPDX-License-Identifier: Apache-2.0
"""A good file of every kind that a reader of this project opens, with the readers, for copies that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import nibabel as nib
import numpy as np

from export.plans import load_plan, save_plan
from export.tune.journal import Journal
from export.tune.sources import read_layers
from export.tune.trials import Verdict
from om_runner.bids.dataset import read_object
from om_runner.bids.participants import read_participants
from tests.support import fakes
from tests.support.graphs import PbBuilder, compile_pb
from tests.support.tf_index import ENTRIES, index_bytes
from train.data.scan_list import read_manifest as read_scan_list
from train.evaluate.command import _of_part, _spec
from train.prepare.outputs import read_record as read_prepared
from train.prepare.outputs import write_record as write_prepared
from train.run.report_page import build_page
from train.run.resume import cut_metrics, scaling_of
from train.settings.npu import NpuSettings
from vxm_convert.artifacts.files import write_json
from vxm_convert.artifacts.sha256sums import begin_manifest, read_manifest
from vxm_convert.formats.dump import Dump, DumpTensor, dump_name, read_dump, write_dump
from vxm_convert.formats.om import read_om
from vxm_convert.formats.tf_checkpoint import read_index
from vxm_convert.formats.tf_graph import read_graph
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.inspection.inspect import describe_file, inspect_file
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS
from vxm_convert.profiles.profile import load_profile, shipped_profiles
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.affines import read_affine, write_affine
from vxm_convert.transforms.itk_composite import read_composite
from vxm_convert.transforms.points import read_points
from vxm_convert.transforms.warps import read_warp, write_warp
from vxm_convert.weights.keras_h5 import open_h5

GRID = Grid(fakes.SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))
Reader = Callable[[Path], Any]


class Kind(NamedTuple):
    """A good file, its name, and all that reads such a file; one copy in `every` is tried where a reader is slow."""

    name: str
    data: bytes
    readers: Tuple[Reader, ...]
    every: int = 1


def good_files(folder: Path, made: Path) -> List[Kind]:
    """All kinds.

    Parameters
    ----------
    folder : Path — an output folder of the runner with a subject ``a``.
    made : Path — an empty folder for the files.
    """
    kinds = _scans(made) + _transforms(made) + _texts(made) + _models(made) + _of_training(made) + _of_tuning(made)
    out = [
        ("moved.nii.gz.json", folder / "a" / "moved.nii.gz.json", (_described,)),
        ("SHA256SUMS", folder / "SHA256SUMS", (read_manifest, lambda path: begin_manifest(path.parent))),
        ("research.yaml", shipped_profiles()["research"], (lambda path: load_profile(str(path)),)),
    ]
    return kinds + [Kind(name, path.read_bytes(), readers) for name, path, readers in out]


def _of(made: Path, name: str, *readers: Reader, every: int = 1) -> Kind:
    return Kind(name, (made / name).read_bytes(), readers, every)


def _scan(path: Path) -> None:
    file = ScanFile(path)
    file.image()
    file.labels()


def _described(path: Path) -> None:
    "\n".join(describe_file(path, True)).encode("utf-8", "backslashreplace")
    json.dumps(inspect_file(path).to_dict(), sort_keys=True)


def _scans(made: Path) -> List[Kind]:
    image, seg = fakes.brain(1)
    kinds = (("a.nii", nib.Nifti1Image), ("b.nii", nib.Nifti2Image), ("a.mgh", nib.MGHImage), ("a.mgz", nib.MGHImage))
    for name, kind in (*kinds, ("a.nii.gz", nib.Nifti1Image)):
        nib.save(kind(image, GRID.affine), str(made / name))
    nib.save(nib.Nifti1Image(seg.astype(np.int16), GRID.affine), str(made / "a_seg.nii.gz"))
    fakes.write_scan(made / "a.npz", 1)
    names = ("a.nii", "b.nii", "a.mgh", "a.mgz", "a.nii.gz", "a_seg.nii.gz", "a.npz")
    return [_of(made, name, _scan) for name in names]


def _transforms(made: Path) -> List[Kind]:
    flow = np.random.RandomState(0).uniform(-1, 1, fakes.SHAPE + (3,)).astype(np.float32)
    found = []
    for form in ("itk", "fsl", "freesurfer", "l2r", "vxm"):
        write_warp(made / f"{form}.nii.gz", Warp(flow, GRID, GRID), form, {}, {"kind": "none"})
        # Without the side-car, the reader needs the name of the format.
        found.append(_of(made, f"{form}.nii.gz", lambda path, form=form: read_warp(path, form, GRID, GRID)))
        if form in ("itk", "freesurfer"):
            found.append(_of(made, f"{form}.nii.gz", lambda path: read_warp(path, None, GRID, GRID)))
    plain = flow[..., np.newaxis, :] + np.indices(fakes.SHAPE).transpose(1, 2, 3, 0)[..., np.newaxis, :].astype(
        np.float32
    )
    image = nib.Nifti1Image((plain @ GRID.affine[:3, :3].T).astype(np.float32), GRID.affine)
    image.header.set_intent("vector", (), "Mapping")
    nib.save(image, str(made / "y_a.nii"))
    found.append(_of(made, "y_a.nii", lambda path: read_warp(path, None, GRID, GRID)))
    write_warp(made / "disp.npz", Warp(flow, GRID, GRID), "l2r", {}, {"kind": "none"})
    found.append(_of(made, "disp.npz", lambda path: read_warp(path, "l2r", GRID, GRID)))
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, 3)
    names = (("itk", "a.tfm"), ("itk", "a.mat"), ("ras", "affine.txt"), ("lta", "a.lta"), ("fsl", "flirt.mat"))
    for form, name in names:
        write_affine(made / name, Affine(matrix, GRID, GRID), form)
        found.append(_of(made, name, lambda path: read_affine(path, GRID, GRID)))
    try:
        import SimpleITK as itk

        field = itk.GetImageFromArray(np.zeros((8, 8, 8, 3)), isVector=True)
        parts = [itk.TranslationTransform(3, (1, 2, 3)), itk.DisplacementFieldTransform(field)]
        itk.WriteTransform(itk.CompositeTransform(parts), str(made / "c.h5"))
        # SimpleITK reads it in a process of its own, half a second each.
        found.append(_of(made, "c.h5", read_composite, every=60))
    except ImportError:
        pass
    return found


def _texts(made: Path) -> List[Kind]:
    fcsv = (
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n1,1,2,3,0,0,0,1,1,1,0,F-1,,\n"
    )
    point = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [{"position": [1, 2, 3]}]}
    texts: Dict[str, Tuple[str, Tuple[Reader, ...]]] = {
        "points.csv": ("label,x,y,z\na,1,2,3\nb,4,5,6\n", (read_points,)),
        "points.fcsv": (fcsv, (read_points,)),
        "points.mrk.json": (json.dumps({"markups": [point]}), (read_points,)),
        "labels.txt": ("2 Left White\n3,Left Cortex\n41 Right\n", (lambda path: load_label_set(str(path)),)),
        "scans.csv": ("moving,fixed,seg\na.nii,b.nii,\n", (read_scan_list,)),
        "participants.tsv": (
            "participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\n",
            (lambda path: read_participants(path.parent),),
        ),
        "dataset_description.json": ('{"Name": "x", "BIDSVersion": "1.8.0"}', (read_object, _described)),
        "sub-01_T1w.json": ('{"SkullStripped": true, "Manufacturer": "x"}', (read_object,)),
    }
    for name, (text, _) in texts.items():
        (made / name).write_text(text, encoding="utf-8")
    for name in ("a.nii", "b.nii"):
        # The list of scans names them.
        assert (made / name).is_file()
    return [_of(made, name, *readers) for name, (_, readers) in texts.items()]


def _models(made: Path) -> List[Kind]:
    fakes.contract(1).save(made / "contract.json")
    pb, kind = PbBuilder(), np.dtype(np.float32)
    pb.node("Add", "y", pb.placeholder("x", (1, 4)), pb.const("one", np.ones((1, 4), np.float32)), T=kind)
    compile_pb(pb.save(made / "frozen.pb"), made / "vxm.om", [("y", 0)])
    dump = str(dump_name("Relu", "net/relu", 1, 2, 1_600_000_000_000_000))
    tensor = DumpTensor(np.zeros((2, 3), np.float16), 2, (2, 3))
    write_dump(made / dump, Dump("net/relu", 1_600_000_000_000_000, [], [tensor]))
    found = [
        _of(made, "contract.json", GraphContract.load, _described),
        _of(made, "frozen.pb", read_graph, _described),
        _of(made, "vxm.om", read_om, _described),
        _of(made, dump, read_dump, _described),
    ]
    (made / "model.index").write_bytes(index_bytes(ENTRIES))
    found.append(_of(made, "model.index", read_index, _described))
    try:
        from onnx import TensorProto, helper

        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
        found.append(Kind("a.onnx", helper.make_model(graph, producer_name="x").SerializeToString(), (_described,)))
    except ImportError:
        pass
    try:
        import h5py

        with h5py.File(str(made / "w.h5"), "w") as handle:
            for layer, width in (("conv3d_1", 16), ("conv3d_2", 32), ("flow", 3)):
                handle.create_dataset(f"model_weights/{layer}/{layer}/kernel:0", data=np.zeros((3, 3, 3, 2, width)))
                handle.create_dataset(f"model_weights/{layer}/{layer}/bias:0", data=np.zeros(width))
        found.append(_of(made, "w.h5", _weights, _described))
    except ImportError:
        pass
    return found


def _weights(path: Path) -> None:
    with open_h5(path) as datasets:
        for dataset in datasets.values():
            np.asarray(dataset)


def _of_training(made: Path) -> List[Kind]:
    state = {
        "schema": 1,
        "step": 5,
        "epoch": 1,
        "files": {},
        "fingerprint": {"loss_scale": {"kind": "fixed"}, "files": {}},
    }
    write_json(made / "model-5.state.json", state)
    steps = [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.4},
        {"event": "epoch", "epoch": 1, "step": 2, "loss": 0.45},
    ]
    (made / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="utf-8")
    subject = SimpleNamespace(moving=Path("/scans/a.npz"))
    write_json(made / "split.json", {"train": ["/scans/a.npz"], "validation": [], "test": []})
    write_json(made / "spec.json", fakes.contract(1).model.to_dict())
    (made / "prepared.npz").write_bytes(b"1")
    record = write_prepared(made, [made / "prepared.npz"], {"scan": "0" * 64}, {"name": "a"})
    switch = {"Switch": {"UBFusion": {"A": "on"}}}
    write_json(made / "fusion.cfg", switch)
    write_json(made / "mix.json", {"black-list": {"to-add": ["GatherV2"]}})

    return [
        _of(made, "model-5.state.json", lambda path: scaling_of(path.parent)),
        _of(made, "metrics.jsonl", lambda path: build_page(cut_metrics(path, 3, 2), {}, {})),
        _of(made, "split.json", lambda path: _of_part((subject,), path.parent, "train")),
        _of(made, "spec.json", lambda path: _spec(SimpleNamespace(variant=None), path.parent, (16, 16, 32))),
        _of(made, record.name, lambda path: read_prepared(path.with_suffix(""))),
        _of(made, "fusion.cfg", lambda path: NpuSettings(fusion_switch=str(path))),
        _of(made, "mix.json", lambda path: NpuSettings(precision_mode="allow_mix_precision", modify_mixlist=path)),
    ]


def _of_tuning(made: Path) -> List[Kind]:
    save_plan(made / "plan.json", PLANS["balanced"], {"conv": "it is large"})
    layers = [{"name": "conv", "single": {"relative": 0.1}, "originals": ["a"], "source": True}]
    write_json(made / "layers.json", {"layers": layers})
    with Journal(made / "trials.jsonl", {"a": 1}, False) as journal:
        journal.add(frozenset({"conv"}), Verdict(True, 1.0, "good", False))

    def resumed(path: Path) -> None:
        with Journal(path, {"a": 1}, True) as journal:
            journal.find(frozenset({"conv"}))

    return [
        _of(made, "plan.json", load_plan),
        _of(made, "layers.json", read_layers),
        _of(made, "trials.jsonl", resumed),
    ]
