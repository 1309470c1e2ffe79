# SPDX-License-Identifier: Apache-2.0
"""The registrar: what goes in, what comes out, what stays open, what is refused, and that the command agrees with it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Dict, get_type_hints

import nibabel as nib
import numpy as np
import pytest

from om_runner import Failure, Moving, Registrar
from om_runner import __main__ as cli
from om_runner.api.items import Item, told_apart
from om_runner.api.result import Metrics
from om_runner.registration import session
from om_runner.results.columns import COLUMNS, MetricsRow
from tests.support import fakes
from tests.support.shift import ShiftBench, ShiftRuntime, flow_of
from vxm_convert import ArtifactError, ImplausibleError, ToolchainError, VolumeError
from vxm_convert.scans.nifti import write_nifti

#: LIA, 1 mm, as the network's own grid of that shape
AFFINE = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch) -> ShiftBench:
    """Three scans with segmentations as .npz, an atlas, and a device that answers with a known flow."""
    for number in range(1, 4):
        fakes.write_scan(tmp_path / "scans" / f"sub-{number}.npz", number)
    fakes.write_scan(tmp_path / "atlas.npz", 0)
    return ShiftBench(tmp_path, monkeypatch)


def registrar(folder: Path, **options) -> Registrar:
    return Registrar("vxm.om", folder / "atlas.npz", **options)


def hashes(folder: Path) -> Dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.suffix != ".json"}


def test_one_scan(bench: ShiftBench, tmp_path: Path) -> None:
    with registrar(tmp_path) as register:
        result = register(tmp_path / "scans" / "sub-1.npz")
        assert register.simulated
    image, seg = fakes.brain(1)
    assert result.ok and result.name == "sub-1" and result.simulated
    assert result.warnings[0].startswith("left/right flip suspected")
    assert np.array_equal(result.warp.u, flow_of(fakes.SHAPE)) and np.array_equal(result.flow, result.warp.u)
    # At a prompt neither fills the screen.
    assert "dice_after" in repr(result) and len(repr(result)) < 3000 and len(repr(result.warp)) < 1000
    assert result.moved.shape == fakes.SHAPE and result.moved.get_data_dtype() == np.uint8
    again = result.warp.apply((image, result.warp.moving.affine), edge="clamp")
    assert np.abs(np.asarray(again.dataobj).astype(int) - np.asarray(result.moved.dataobj)).max() <= 1
    carried = result.warp.apply((seg, result.warp.moving.affine), "nearest", "clamp")
    assert np.array_equal(np.asarray(carried.dataobj), np.asarray(result.labels.dataobj))
    assert result.metrics.device_seconds == fakes.DEVICE_SECONDS and result.metrics.n_labels == 3
    assert 0 < result.metrics.dice_after < 1 and result.metrics.flow_max_voxel > 0.9
    assert set(result.metrics.to_dict()) >= {"dice_before", "jacobian_min"}
    assert np.array_equal(np.asarray(result.atlas_labels.dataobj), fakes.brain(0)[1])
    assert result.labels.get_data_dtype() == seg.dtype == result.atlas_labels.get_data_dtype()


@pytest.mark.parametrize("batch, sets", [(1, 2), (2, 2), (2, 1), (4, 2)])
def test_many_scans_in_order_on_one_device(tmp_path: Path, monkeypatch, batch: int, sets: int) -> None:
    made = ShiftBench(tmp_path, monkeypatch, batch, sets)
    fakes.write_scan(tmp_path / "atlas.npz", 0)
    scans = [fakes.write_scan(tmp_path / "scans" / f"s{n}.npz", n) for n in range(5)]
    scans.insert(2, tmp_path / "scans" / "none.npz")
    with registrar(tmp_path, threads=2) as register:
        results = list(register.many(iter(scans), on_error="yield"))
        (runtime,) = made.runtimes
        assert runtime.opened == 1 and runtime.free == sets
    assert runtime.opened == 0
    assert [result.name for result in results] == ["s0", "s1", "none", "s2", "s3", "s4"]
    failed = results[2]
    assert isinstance(failed, Failure) and not failed.ok and "none.npz" in str(failed.error)
    assert isinstance(failed.error, VolumeError)
    assert len(runtime.fed) == -(-5 // batch)
    for number, result in zip((0, 1, 2, 3, 4), (r for r in results if r.ok)):
        expected = fakes.brain(number)[0]
        moved = np.asarray(result.moved.dataobj).astype(int)
        assert np.abs(moved - expected).mean() < 12 and np.abs(moved - fakes.brain(number + 7)[0]).mean() > 0.1


def test_a_bad_scan_raises_its_error_and_the_registrar_goes_on(bench: ShiftBench, tmp_path: Path) -> None:
    with registrar(tmp_path) as register:
        with pytest.raises(VolumeError, match="no-such"):
            list(register.many([tmp_path / "scans" / "sub-1.npz", tmp_path / "no-such.nii"]))
        assert register(tmp_path / "scans" / "sub-2.npz").ok
        assert bench.runtimes[0].free == 2


def test_a_stream_that_is_left_early_frees_its_buffers(bench: ShiftBench, tmp_path: Path) -> None:
    scans = [tmp_path / "scans" / f"sub-{n}.npz" for n in (1, 2, 3)] * 3
    with registrar(tmp_path, threads=1) as register:
        for _ in range(3):
            results = register.many(scans)
            assert next(results).name == "sub-1"
            with pytest.raises(RuntimeError, match="not finished"):
                next(register.many(scans))
            results.close()
            assert bench.runtimes[0].free == 2
        assert len(list(register.many(scans))) == 9


def test_closing_ends_a_stream_that_is_not_used_up(bench: ShiftBench, tmp_path: Path) -> None:
    """What is in work is waited for before the device is released; what is lost is no silent end of the results."""
    scans = [tmp_path / "scans" / f"sub-{n}.npz" for n in (1, 2, 3)]
    register = registrar(tmp_path, threads=1)
    with register:
        results = register.many(scans)
        next(results)
    assert bench.runtimes[0].free == 2 and bench.runtimes[0].opened == 0
    with register:
        assert register(scans[1]).name == "sub-2"
        with pytest.raises(RuntimeError, match="closed before these results were used up"):
            next(results)


def test_names_that_collide_are_told_apart(bench: ShiftBench, tmp_path: Path, caplog) -> None:
    """A program saves under `result.name`: two results of one name would replace each other."""
    names = [item.name for item in told_apart(Item(Moving(""), name) for name in ("T1", "T1", "t1", "T1_2"))]
    assert names == ["T1", "T1_2", "t1_3", "T1_2_2"]
    assert "T1: the name of an earlier scan; this one's results are named T1_2" in caplog.messages
    scan = tmp_path / "anna" / "mri" / "norm.mgz"
    scan.parent.mkdir(parents=True)
    nib.MGHImage(fakes.brain(2)[0], AFFINE).to_filename(str(scan))
    with registrar(tmp_path, threads=1) as register:
        assert [result.name for result in register.many([tmp_path / "anna", scan])] == ["anna", "anna_2"]
        with pytest.raises(VolumeError, match="expected several scans; pass a list"):
            next(register.many(str(scan)))


def test_the_device_works_while_the_caller_does(bench: ShiftBench, tmp_path: Path) -> None:
    """Between two results nobody asks for anything, and the next scans are registered all the same."""
    scans = [tmp_path / "scans" / f"sub-{n}.npz" for n in (1, 2, 3)] * 4
    with registrar(tmp_path, threads=1) as register:
        results = register.many(scans)
        assert next(results).name == "sub-1"
        begun = time.monotonic()
        while len(bench.runtimes[0].fed) < 4 and time.monotonic() - begun < 20:
            time.sleep(0.01)
        assert 4 <= len(bench.runtimes[0].fed) < 12, "some ahead, and not the whole cohort"
        results.close()


def test_a_lost_device_ends_the_stream(bench: ShiftBench, tmp_path: Path, monkeypatch) -> None:
    scans = [tmp_path / "scans" / f"sub-{n}.npz" for n in (1, 2, 3)]
    with registrar(tmp_path) as register:
        results = register.many(scans, on_error="yield")
        monkeypatch.setattr(ShiftRuntime, "broken", True, raising=False)
        bench.runtimes[0].broken = True
        with pytest.raises(ToolchainError, match="device is lost"):
            list(results)
        assert bench.runtimes[0].free == 2


def test_path_image_and_array_give_the_same_bits(bench: ShiftBench, tmp_path: Path) -> None:
    image, seg = fakes.brain(1)
    write_nifti(tmp_path / "a.nii.gz", image, AFFINE)
    write_nifti(tmp_path / "a_seg.nii.gz", seg, AFFINE)
    atlas = fakes.brain(0)
    inputs = [
        tmp_path / "a.nii.gz",
        str(tmp_path / "a.nii.gz"),
        Moving(nib.load(str(tmp_path / "a.nii.gz")), tmp_path / "a_seg.nii.gz"),
        Moving((image, AFFINE), (seg, AFFINE)),
        Moving(nib.MGHImage(image, AFFINE), nib.MGHImage(seg.astype(np.int32), AFFINE)),
    ]
    with Registrar("vxm.om", (atlas[0], AFFINE), atlas_labels=(atlas[1], AFFINE)) as register:
        results = list(register.many(inputs))
    assert [result.name for result in results] == ["a", "a_2", "scan1", "scan2", "scan3"]
    for result in results:
        assert np.array_equal(np.asarray(result.moved.dataobj), np.asarray(results[0].moved.dataobj))
        assert np.array_equal(np.asarray(result.labels.dataobj), np.asarray(results[0].labels.dataobj))
        assert result.metrics.dice_after == results[0].metrics.dice_after


def test_images_in_memory_leave_nothing_on_the_disk(bench: ShiftBench, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with Registrar("vxm.om", (fakes.brain(0)[0], AFFINE)) as register:
        register((fakes.brain(1)[0], AFFINE))
        with pytest.raises(VolumeError, match="NaN|finite"):
            register((np.full(fakes.SHAPE, np.nan), AFFINE))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_error_after_the_network_names_no_temporary_file(bench: ShiftBench, tmp_path: Path, monkeypatch) -> None:
    def implausible(loaded, *_):
        raise ImplausibleError(f"{loaded.scan.path}: the model returned NaN")

    monkeypatch.setattr("om_runner.api.registrar.products_of", implausible)
    with registrar(tmp_path) as register:
        with pytest.raises(ImplausibleError, match=r"^scan1\.nii: the model"):
            register((fakes.brain(1)[0], AFFINE))
        with pytest.raises(ImplausibleError, match="^/.*/sub-1.npz: the model"):
            register(tmp_path / "scans" / "sub-1.npz")


@pytest.mark.parametrize(
    "scan, said",
    [
        ((np.zeros((4, 4)), np.eye(4)), "expected 3-D"),
        ((np.zeros((4, 4, 4), complex), np.eye(4)), "integers or floats"),
        ((np.zeros((4, 4, 4)), np.zeros((4, 4))), "affine"),
        (np.zeros((4, 4, 4)), "tuple of an array and its 4x4 affine"),
        (nib.AnalyzeImage(np.zeros((4, 4, 4), np.uint8), np.eye(4)), "got AnalyzeImage"),
        (nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), None), "orientation"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_image_is_refused(bench: ShiftBench, tmp_path: Path, scan, said: str) -> None:
    with registrar(tmp_path) as register, pytest.raises(VolumeError, match=said):
        register(scan)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"affine": "no-such.lta"}, "affine: got 'no-such.lta'"),
        ({"orientation": "LLL"}, "LLL"),
        ({"intensity": "best"}, "expected one of auto, convention"),
        ({"space": "mni"}, "expected one of atlas"),
        ({"edge": "wrap"}, "expected one of zero"),
        ({"label_interpolation": "linear"}, "expected one of"),
        ({"toolchain": "gpu"}, "expected one of auto"),
        ({"affine": ""}, "affine: got ''"),
        ({"orientation": 3}, "grid orientation: got '3'"),
        ({"label_set": "mine"}, "label set: got 'mine'"),
        ({"device": -1}, "device: got -1, expected a whole number of at least 0"),
        ({"device": "first"}, "device: got 'first'"),
        ({"threads": 0}, "threads: got 0, expected a whole number of at least 1"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_opened(tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(VolumeError, match=said):
        Registrar("vxm.om", tmp_path / "atlas.npz", **options)


def test_it_must_be_open(bench: ShiftBench, tmp_path: Path) -> None:
    register = registrar(tmp_path)
    for use in (lambda: register(tmp_path / "scans" / "sub-1.npz"), lambda: register.simulated):
        with pytest.raises(RuntimeError, match="with statement"):
            use()
    register.close()


@pytest.mark.parametrize("space", ["atlas", "native"])
def test_saved_files_are_those_of_the_command(bench: ShiftBench, tmp_path: Path, monkeypatch, space: str) -> None:
    """Same scans through both: every file of a subject but its log has the same bytes."""
    turned = np.array([[1.1, 0, 0, -8.8], [0, 0, -1.1, 17.6], [0, 1.1, 0, -8.8], [0, 0, 0, 1]])
    (tmp_path / "raw").mkdir()
    image, seg = fakes.brain(2)
    write_nifti(tmp_path / "raw" / "turned.nii.gz", image, turned)
    write_nifti(tmp_path / "raw" / "turned_seg.nii.gz", seg, turned)
    write_nifti(tmp_path / "raw" / "plain.nii.gz", fakes.brain(3)[0], AFFINE)
    write_nifti(tmp_path / "fixed.nii.gz", fakes.brain(0)[0], AFFINE)
    write_nifti(tmp_path / "fixed_seg.nii.gz", fakes.brain(0)[1], AFFINE)
    wanted = "moved,warp,seg,inverse,jacobian"
    monkeypatch.setattr(session, "open_model", lambda *args: bench.model)
    argv = ["--input", str(tmp_path / "raw"), "--atlas", str(tmp_path / "fixed.nii.gz"), "--out", str(tmp_path / "out")]
    argv += ["--compare", "none", "--outputs", wanted, "--space", space, "--warp-format", "fsl"]
    settings = cli.settings_from(cli.build_parser().parse_args(argv), argv)
    assert session.run_session(settings, lambda model, device: ShiftRuntime(model)) == 0
    with Registrar("vxm.om", tmp_path / "fixed.nii.gz", space=space) as register:
        for name in ("turned", "plain"):
            result = register(tmp_path / "raw" / f"{name}.nii.gz")
            result.save(tmp_path / "saved" / name, wanted.split(","), "fsl")
            theirs = hashes(tmp_path / "out" / name)
            theirs.pop("log.txt")
            assert len(theirs) >= 4 and hashes(tmp_path / "saved" / name) == theirs
            side = (tmp_path / "saved" / name / "moved.nii.gz.json").read_text()
            assert bench.model.contract.hashes["om"] in side and '"simulated": true' in side
    with pytest.raises(VolumeError, match="save: got 'qc'"):
        result.save(tmp_path / "x", ["qc"])
    with pytest.raises(VolumeError, match="save: got 'ants'"):
        result.save(tmp_path / "x", warp_format="ants")
    with pytest.raises(ArtifactError, match="raw: holds plain.nii.gz and no result of om_runner"):
        result.save(tmp_path / "raw")
    with pytest.raises(ArtifactError, match="fixed.nii.gz: a file where the folder"):
        result.save(tmp_path / "fixed.nii.gz")
    with pytest.raises(ArtifactError, match="cannot write there"):
        result.save(tmp_path / "fixed.nii.gz" / "x")
    assert sorted(p.name for p in result.save(tmp_path / "saved" / "plain", "moved").iterdir()) == [
        "moved.nii.gz",
        "moved.nii.gz.json",
    ]


def test_figures_are_columns_of_the_table() -> None:
    """Same names, same types: `Metrics` is the part of a row that a Python program has no other place for."""
    ours, rows = get_type_hints(Metrics), get_type_hints(MetricsRow)
    assert {name: rows.get(name) for name in ours} == ours
    assert set(ours) - {"structures"} <= set(COLUMNS)
