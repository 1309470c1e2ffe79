# SPDX-License-Identifier: Apache-2.0
"""Writing BIDS: a whole derivative, its side-cars, what judges it from outside, the BIDS-App call, and folders it must
refuse.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from om_runner.bids.labeltable import colour_of, name_of
from om_runner.bids.records import files_in, results_in
from tests.support.bids_bench import Bids, validator_errors
from vxm_convert.__main__ import main as convert
from vxm_convert.inspection.verify import BROKEN, verify_folders
from vxm_convert.metrics.labels import LABEL_NAMES
from vxm_convert.transforms.formats import FORMATS

pytestmark = pytest.mark.any_python("names, JSON and tables; sharing/test_bids_at_once writes a derivative on both")

MOVED = "sub-01/anat/sub-01_space-atlasv2_desc-moved_T1w"
WARP = "sub-01/anat/sub-01_from-T1w_to-atlasv2_mode-image_xfm"
INVERSE = "sub-01/anat/sub-01_from-atlasv2_to-T1w_mode-image_xfm"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run with every output, shared by the tests that only look."""
    with pytest.MonkeyPatch.context() as patch:
        bids = Bids(tmp_path_factory.mktemp("bids"), patch)
        bids.write("LICENSE", "free for all\n")
        assert bids.run("--outputs", "moved,warp,inverse,seg,jacobian") == 0
        yield bids


@pytest.fixture
def bids(tmp_path, monkeypatch):
    return Bids(tmp_path, monkeypatch)


def test_names_of_everything_that_bids_sees(whole):
    ours = [name for name in whole.names() if name.startswith("sub-01/")]
    stems = [
        MOVED,
        WARP,
        INVERSE,
        "sub-01/anat/sub-01_space-atlasv2_jacobian",
        "sub-01/anat/sub-01_space-atlasv2_desc-moved_dseg",
        "sub-01/anat/sub-01_seg-atlasv2_dseg",
    ]
    assert ours == sorted(stem + end for stem in stems for end in (".json", ".nii.gz"))
    assert [name for name in whole.names() if "/" not in name] == [
        ".bidsignore",
        "CHANGES",
        "LICENSE",
        "README.md",
        "SHA256SUMS",
        "dataset_description.json",
        "dseg.tsv",
        "failures.tsv",
        "index.html",
        "metrics.tsv",
        "participants.json",
        "participants.tsv",
        "run.json",
        "structures.tsv",
    ]
    assert {name.split("/")[1] for name in whole.names() if name.startswith("sub-02/")} == {"ses-a", "ses-b"}
    assert not list(whole.out.rglob(".tmp-*"))
    found = results_in(whole.out)
    assert sorted(found) == ["sub-01", "sub-02_ses-a", "sub-02_ses-b_run-1", "sub-02_ses-b_run-2"]
    assert len([plain for plain in found["sub-01"] if plain.endswith(".nii.gz")]) == 6
    assert found["sub-01"]["moved.nii.gz"] == whole.out / f"{MOVED}.nii.gz"
    assert all(path.is_file() for files in found.values() for path in files.values())


def test_images_are_those_of_the_plain_layout(whole, tmp_path):
    plain = tmp_path / "plain"
    assert (
        whole.main("--input", str(whole.raw), "--out", str(plain), "--participant-label", "sub-01", *whole.usual()) == 0
    )
    folder = plain / "sub-01"
    assert sorted(p.name for p in folder.glob("*.nii.gz")) == ["flow.nii.gz", "moved.nii.gz", "moved_seg.nii.gz"]
    for ours, theirs in ((MOVED, "moved.nii.gz"), (WARP, "flow.nii.gz")):
        a, b = nib.load(str(whole.out / f"{ours}.nii.gz")), nib.load(str(folder / theirs))
        assert np.array_equal(np.asarray(a.dataobj), np.asarray(b.dataobj)) and np.array_equal(a.affine, b.affine)


def test_the_description_names_sources_maker_and_that_it_is_simulated(whole):
    told = whole.json("dataset_description.json")
    assert told["DatasetType"] == "derivative" and told["Name"].startswith("Nuts & bolts") and told["License"] == "CC0"
    (maker,) = told["GeneratedBy"]
    assert (
        maker["Name"] == "vxm_convert"
        and "SIMULATED" in maker["Description"]
        and "without a container" in maker["Description"]
    )
    assert told["DatasetLinks"]["raw"] == whole.raw.as_uri() and "%20" in told["DatasetLinks"]["raw"]
    assert told["SourceDatasets"] == [{"URL": whole.raw.as_uri()}] and told["Authors"] == ["A. One", "B. Two"]
    assert "SIMULATED" in (whole.out / "README.md").read_text(encoding="utf-8")
    assert re.match(
        r"1\.0\.0 \d{4}-\d\d-\d\d\n  - Registered to atlas_v2\.npz", (whole.out / "CHANGES").read_text(encoding="utf-8")
    )
    assert (whole.out / "LICENSE").read_text(encoding="utf-8") == "free for all\n"


def test_side_cars_say_what_was_made_from_what(whole):
    moved, warp, inverse = (whole.json(name + ".json") for name in (MOVED, WARP, INVERSE))
    assert moved["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz", "bids:atlas:atlas_v2.npz"]
    assert (
        moved["SpatialReference"] == "bids:atlas:atlas_v2.npz"
        and moved["SkullStripped"] is True
        and moved["Simulated"] is True
    )
    assert "SIMULATED" in moved["RegistrationMethod"] and "Resolution" not in moved
    assert (warp["FromFile"], warp["ToFile"]) == (inverse["ToFile"], inverse["FromFile"]) == tuple(moved["Sources"])
    assert warp["Units"] == "mm" and warp["WarpFormat"] == inverse["WarpFormat"] == "itk"
    assert inverse["InverseConsistency"]["fixed_mm"]["max"] >= 0
    seg = whole.json("sub-01/anat/sub-01_space-atlasv2_desc-moved_dseg.json")
    assert (
        seg["Sources"][0] == "bids:raw:derivatives/fs/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz"
        and seg["Manual"] is False
    )
    carried = whole.json("sub-01/anat/sub-01_seg-atlasv2_dseg.json")
    assert carried["SpatialReference"] == moved["Sources"][0]
    record = whole.json(INVERSE + ".nii.gz.json")
    assert record["file"] == Path(INVERSE).name + ".nii.gz" and record["inverse_of"] == Path(WARP).name + ".nii.gz"


def test_tables_of_labels_participants_and_scans(whole):
    assert [(row["index"], row["name"]) for row in whole.table("dseg.tsv")] == [
        (str(label), LABEL_NAMES[label]) for label in (0, 2, 16, 41)
    ]
    people = whole.table("participants.tsv")
    assert [(row["participant_id"], row["age"], row["n_scans"], row["n_failed"]) for row in people] == [
        ("sub-01", "34", "1", "0"),
        ("sub-02", "61", "3", "0"),
    ]
    rows = {row["subject"]: row for row in whole.table("metrics.tsv")}
    assert list(rows) == ["sub-01", "sub-02_ses-a", "sub-02_ses-b_run-1", "sub-02_ses-b_run-2"]
    assert people[0]["dice_after"] == rows["sub-01"]["dice_after"] != "n/a" and people[1]["dice_after"] == "n/a"
    assert float(people[1]["jacobian_min"]) == min(float(rows[name]["jacobian_min"]) for name in list(rows)[1:])


def test_verify_finds_no_broken_link_and_a_damaged_file(whole, tmp_path):
    links = verify_folders([whole.out])
    assert len(links) > 100 and not [link for link in links if link.state == BROKEN]
    copy = tmp_path / "copy"
    shutil.copytree(str(whole.out), str(copy))
    with open(str(copy / f"{MOVED}.nii.gz"), "r+b") as handle:
        handle.write(b"\x00")
    assert [link.subject.name for link in verify_folders([copy]) if link.state == BROKEN] == [
        Path(MOVED).name + ".nii.gz"
    ]
    assert convert(["verify", str(copy)]) == 1


def test_the_verbs_take_the_names(whole, tmp_path, capsys):
    warp, scan = str(whole.out / f"{WARP}.nii.gz"), whole.raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    assert (
        whole.main(
            "apply",
            "--transform",
            warp,
            "--image",
            str(scan),
            "--out",
            str(tmp_path / "again.nii.gz"),
            "--edge",
            "clamp",
        )
        == 0
    )
    again, ours = (
        np.asarray(nib.load(str(p)).dataobj, float)
        for p in (tmp_path / "again.nii.gz", whole.out / f"{INVERSE}.nii.gz")
    )
    assert again.shape == ours.shape[:3]
    assert whole.main("invert", "--warp", warp, "--inverse", str(tmp_path / "inverse.nii.gz")) == 0
    assert np.abs(np.asarray(nib.load(str(tmp_path / "inverse.nii.gz")).dataobj) - ours).max() < 0.05
    seg = str(whole.out / "sub-01/anat/sub-01_space-atlasv2_desc-moved_dseg.nii.gz")
    capsys.readouterr()
    assert (
        whole.main("evaluate", "--moved-seg", seg, "--fixed-seg", seg, "--labels", "paper30", "--format", "json") == 0
    )
    assert json.loads(capsys.readouterr().out)["overlap"]["dice_mean"] == 1.0


def test_pictures_are_made_of_a_derivative_afterwards(whole, tmp_path):
    assert whole.main("qc", "--registered", str(whole.out), "--out", str(tmp_path / "qc"), "--subject", "sub-01") == 0
    assert (tmp_path / "qc" / "index.html").is_file() and (tmp_path / "qc" / "sub-01" / "grid.png").is_file()


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_warp_format_has_a_name_and_is_read_back(bids, form):
    assert bids.run("--participant-label", "01", "--outputs", "warp", "--warp-format", form) == 0
    assert bids.json(WARP + ".json")["WarpFormat"] == form
    assert bids.main("jacobian", "--warp", str(bids.out / f"{WARP}.nii.gz")) == 0


def test_a_second_run_takes_results_over_and_another_label_of_the_atlas_does_not(bids, caplog):
    caplog.set_level("INFO")
    only = ("--participant-label", "01")
    assert bids.run(*only) == 0
    before = (bids.out / f"{MOVED}.nii.gz").stat().st_mtime_ns
    assert bids.run(*only) == 0
    assert (bids.out / f"{MOVED}.nii.gz").stat().st_mtime_ns == before, "registered again although nothing changed"
    assert [row["participant_id"] for row in bids.table("participants.tsv")] == ["sub-01"]
    assert bids.run(*only, "--atlas-label", "other") == 0
    assert (
        not (bids.out / f"{MOVED}.nii.gz").exists()
        and (bids.out / MOVED.replace("atlasv2", "other")).with_suffix(".nii.gz").is_file()
    )
    assert not [link for link in verify_folders([bids.out]) if link.state == BROKEN]


def test_plain_results_are_not_taken_for_bids_ones(bids):
    assert bids.main("--input", str(bids.raw), "--out", str(bids.out), "--participant-label", "01", *bids.usual()) == 0
    assert (bids.out / "sub-01" / "moved.nii.gz").is_file()
    assert bids.run("--participant-label", "01") == 0
    assert (bids.out / f"{MOVED}.nii.gz").is_file()


def test_a_scan_that_fails_is_counted_and_one_that_recovers_is_not(bids):
    lost = bids.raw / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz"
    good = lost.read_bytes()
    lost.write_bytes(b"")
    assert bids.run() == 1
    assert [row["n_failed"] for row in bids.table("participants.tsv")] == ["0", "1"]
    assert [row["subject"] for row in bids.table("failures.tsv")] == ["sub-02_ses-a"]
    assert bids.app(level="group") == 1 and [row["subject"] for row in bids.table("failures.tsv")] == ["sub-02_ses-a"]
    lost.write_bytes(good)
    assert bids.run() == 0
    assert [(row["n_scans"], row["n_failed"]) for row in bids.table("participants.tsv")] == [("1", "0"), ("3", "0")]


def test_the_app_registers_participants_apart_and_the_group_has_them_all(bids):
    bids.out = bids.raw / "derivatives" / "vxm"
    assert bids.app("--participant_label", "01", "--skip_bids_validator") == 0
    assert bids.app("--participant-label", "02", "--session-label", "b") == 0
    assert [row["subject"] for row in bids.table("metrics.tsv")] == [
        "sub-01",
        "sub-02_ses-b_run-1",
        "sub-02_ses-b_run-2",
    ]
    for name in ("metrics.tsv", "participants.tsv", "dseg.tsv", "SHA256SUMS"):
        (bids.out / name).unlink()
    assert bids.app(level="group") == 0
    assert [row["subject"] for row in bids.table("metrics.tsv")] == [
        "sub-01",
        "sub-02_ses-b_run-1",
        "sub-02_ses-b_run-2",
    ]
    assert [row["n_scans"] for row in bids.table("participants.tsv")] == ["1", "2"] and len(bids.table("dseg.tsv")) == 4
    assert bids.json("dataset_description.json")["DatasetLinks"]["raw"] == "../../"
    assert not [link for link in verify_folders([bids.out]) if link.state == BROKEN]
    assert bids.app("--participant-label", "01") == 0, "our own derivative inside the dataset is not read as a source"


def test_group_without_participants_is_an_error(bids, capsys):
    assert bids.app(level="group") == 1
    assert "run the level participant first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "inside, said",
    [
        (".", "the dataset itself"),
        ("sub-01", "inside the dataset"),
        ("derivatives", "inside the dataset"),
        ("out", "inside the dataset"),
        ("derivatives/fs", "contains another BIDS dataset"),
    ],
)
def test_output_folders_that_would_harm_the_dataset_are_refused(bids, capsys, inside, said):
    bids.write(
        "derivatives/fs/dataset_description.json", json.dumps({"Name": "fs", "GeneratedBy": [{"Name": "FreeSurfer"}]})
    )
    bids.out = bids.raw / inside
    before = sorted(bids.raw.rglob("*"))
    assert bids.run() == 1
    assert said in capsys.readouterr().err and sorted(bids.raw.rglob("*")) == before


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--participant-label", "../x"], "expected a BIDS label"),
        (["--bids-filter", "desc=a b"], "expected KEY=LABEL"),
        (["--bids-filter", "colour=red"], "expected KEY=LABEL"),
        (["--bids-filter", "suffix=bold"], "expected one of T1w"),
        (["--atlas-label", "my-atlas"], "expected a BIDS label"),
    ],
)
def test_labels_that_bids_forbids_are_usage_errors(bids, capsys, argv, said):
    with pytest.raises(SystemExit) as left:
        bids.run(*argv)
    assert left.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, said",
    [
        (["register"], "is not a verb"),
        (["BIDS", "OUT", "participant"], "--atlas is needed"),
        (["BIDS", "OUT", "both"], "is not a verb"),
    ],
)
def test_calls_that_are_neither_verb_nor_app(bids, capsys, argv, said):
    with pytest.raises(SystemExit) as left:
        bids.main(*argv)
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_without_a_description_bids_must_be_said(bids, caplog, capsys):
    (bids.raw / "dataset_description.json").unlink()
    plain = ["--input", str(bids.raw), "--out", str(bids.out), *bids.usual()]
    assert bids.main(*plain, "--participant-label", "01") == 1
    assert "pass --bids" in capsys.readouterr().err
    assert bids.run("--participant-label", "01") == 0 and "read as a BIDS dataset anyway" in caplog.text
    assert bids.json("dataset_description.json")["Name"].startswith("my data set")


def test_a_damaged_table_of_participants_stops_the_run_before_its_work(bids, capsys):
    bids.write("participants.tsv", "subject\tage\n")
    assert bids.run() == 1 and "participants.tsv" in capsys.readouterr().err and not bids.out.exists()


def test_participants_that_the_table_does_not_have_are_named(bids, caplog):
    bids.write("participants.tsv", "participant_id\nsub-02\n")
    assert bids.run("--participant-label", "01") == 0
    assert "1 participants are not in it: sub-01" in caplog.text and len(bids.table("participants.tsv")) == 1


def test_a_dataset_of_links_is_named_by_its_own_names(bids, tmp_path):
    store = tmp_path / "store"
    (bids.raw / "sub-01").rename(store)
    (bids.raw / "sub-01").symlink_to(store, target_is_directory=True)
    assert bids.run("--participant-label", "01") == 0
    assert bids.json(MOVED + ".json")["Sources"][0] == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"


def test_what_the_scans_side_car_says_of_the_skull_is_believed(bids):
    bids.scan("sub-01_T1w", 1, SkullStripped=False)
    assert bids.run("--participant-label", "01") == 0
    told = bids.json(MOVED + ".json")
    assert told["SkullStripped"] is False and told["SkullStrippedFrom"] == "the side-car of the scan"


def test_a_session_without_run_keeps_its_hands_off_its_runs_and_off_the_files_of_others(bids):
    assert bids.run("--participant-label", "02") == 0
    bids.scan("sub-02_ses-b_T1w", 9)
    theirs = bids.out / "sub-02" / "ses-b" / "anat" / "sub-02_ses-b_space-atlasv2_desc-manual_dseg.nii.gz"
    theirs.write_bytes(b"by hand")
    assert bids.run("--participant-label", "02", "--force") == 0
    assert len([name for name in bids.names() if name.endswith("desc-moved_T1w.nii.gz")]) == 4
    assert bids.run("--participant-label", "02", "--force", "--atlas-label", "new") == 0
    moved = [name for name in bids.names() if name.endswith("desc-moved_T1w.nii.gz")]
    assert len(moved) == 4 and all("space-new" in name for name in moved) and theirs.read_bytes() == b"by hand"


def test_a_record_that_names_files_elsewhere_is_not_followed(tmp_path):
    record = {"files": {"a": "../x", "b": "/etc/passwd", "c": "sub-01/anat/x", "d": "sub-01/../../y"}}
    assert (
        files_in(tmp_path, record) == {"c": tmp_path / "sub-01" / "anat" / "x"}
        and files_in(tmp_path, {"files": 3}) == {}
    )


def test_a_damaged_record_is_named_and_made_anew(bids, caplog):
    assert bids.run("--participant-label", "01") == 0
    record = bids.out / "sub-01" / "provenance" / "sub-01_results.json"
    record.write_text("{", encoding="utf-8")
    assert bids.run("--participant-label", "01") == 0
    assert "sub-01_results.json: not a JSON object" in caplog.text
    assert "moved.nii.gz" in results_in(bids.out)["sub-01"]
    assert not [link for link in verify_folders([bids.out]) if link.state == BROKEN]


@pytest.mark.parametrize(
    "text, why",
    [
        ('{"subject": null}', "'' is not an entity"),
        ('{"subject": "../x"}', "'../x' is not an entity"),
        ('{"subject": "sub-01"}', "has the columns subject, expected subject, "),
        ("[]", "contains a list, expected a JSON object"),
        ('{"labels": ["x"]}', "'' is not an entity"),
    ],
)
def test_the_group_names_damaged_records_and_goes_on(bids, caplog, text, why):
    assert bids.run("--participant-label", "01") == 0
    damaged = [bids.out / "sub-01" / "provenance" / f"sub-01_acq-x_{kind}.json" for kind in ("metrics", "failed")]
    for path in damaged + [damaged[0].with_name("sub-01_acq-x_results.json")]:
        path.write_text(text, encoding="utf-8")
    caplog.clear()
    assert bids.app(level="group") == 0
    for path in damaged:
        said = [r.getMessage() for r in caplog.records if f"record skipped: {path}" in r.getMessage()]
        assert said and all(why in line and "remove" in line for line in said), caplog.text
    assert [row["subject"] for row in bids.table("metrics.tsv")] == ["sub-01"] and bids.table("failures.tsv") == []
    assert [row["n_scans"] for row in bids.table("participants.tsv")] == ["1"]
    assert len(bids.table("dseg.tsv")) > 1, "the labels of the good record are there"


def test_every_label_has_a_name_and_a_colour_of_its_own_kind():
    assert (
        name_of(26) == "Left-Accumbens-area"
        and name_of(2) == "Left-Cerebral-White-Matter"
        and name_of(9999) == "label-9999"
    )
    assert colour_of(17) == colour_of(53) == "#DCD814" and colour_of(9999) == colour_of(9999) != colour_of(10000)
    assert all(re.fullmatch("#[0-9A-F]{6}", colour_of(label)) for label in (*LABEL_NAMES, 9999, 2**31 - 1))


def test_the_validator_of_bids_accepts_it(whole, tmp_path):
    assert validator_errors(whole.out) == []
    copy = tmp_path / "broken"
    shutil.copytree(str(whole.out), str(copy))
    (copy / f"{MOVED}.json").unlink()
    (copy / ".bidsignore").unlink()
    codes = {issue["code"] for issue in validator_errors(copy)}
    assert {"NOT_INCLUDED", "SIDECAR_KEY_REQUIRED"} <= codes, "a judge that finds nothing proves nothing"
