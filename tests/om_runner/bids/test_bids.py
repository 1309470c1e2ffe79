# SPDX-License-Identifier: Apache-2.0
"""Reading BIDS: names, which scans of a dataset, which segmentation, participants.tsv; and what people get wrong."""

from __future__ import annotations

import json
import os

import pytest

from om_runner.bids import names
from om_runner.bids.dataset import Choice, Dataset, generated_by_us, is_dataset
from om_runner.bids.participants import read_participants, write_participants
from om_runner.bids.request import check_output
from tests.support.bids_bench import Bids
from vxm_convert.errors import VolumeError


@pytest.fixture
def bids(tmp_path, monkeypatch):
    return Bids(tmp_path, monkeypatch)


def subjects(bids, **choice):
    return [scan.subject for scan in Dataset(bids.raw).scans(Choice(**choice))]


def test_names_are_taken_apart_and_put_together_in_the_order_of_the_specification():
    name = names.parse("sub-01_run-2_ses-x_desc-brain_T1w.nii.gz")
    assert name.entities == {"sub": "01", "run": "2", "ses": "x", "desc": "brain"} and name.suffix == "T1w"
    assert name.text() == "sub-01_ses-x_run-2_desc-brain_T1w.nii.gz"
    assert names.parse("sub-01_acq-6p+s2_T1w.nii").entities["acq"] == "6p+s2", "labels may have a plus"
    for wrong in (
        "T1w.nii.gz",
        "ses-1_sub-2_T1w.nii.gz",
        "sub-0 1_T1w.nii.gz",
        "sub-.._T1w.nii.gz",
        "sub-01_sub-02_T1w.nii.gz",
        "sub-01_T1w.mgz",
        "sub-01_run_T1w.nii.gz",
        "sub-01_desc-a-b_T1w.nii.gz",
        "sub-01_.nii.gz",
    ):
        with pytest.raises(VolumeError):
            names.parse(wrong)


@pytest.mark.parametrize(
    "space, source, grid, own",
    [
        ("atlas", None, "space-x", ""),
        ("network", None, "space-x_res-network", ""),
        ("native", "MNI", "space-x_res-native", "space-MNI_"),
    ],
)
def test_every_result_has_its_name(space, source, grid, own):
    naming = names.Naming("x", "T2w", space, source)
    made = {
        plain: naming.path_of("sub-1_ses-2_run-3", plain).as_posix()
        for plain in (
            "moved.nii.gz",
            "moved_seg.nii.gz",
            "atlas_seg_in_scan.nii.gz",
            "flow.nii.gz",
            "inverse.nii.gz",
            "jacobian.nii.gz",
            "qc.png",
            "log.txt",
        )
    }
    head, where = "sub-1/ses-2/", source or "T2w"
    assert made == {
        "moved.nii.gz": f"{head}anat/sub-1_ses-2_run-3_{grid}_desc-moved_T2w.nii.gz",
        "moved_seg.nii.gz": f"{head}anat/sub-1_ses-2_run-3_{grid}_desc-moved_dseg.nii.gz",
        "atlas_seg_in_scan.nii.gz": f"{head}anat/sub-1_ses-2_run-3_{own}seg-x_dseg.nii.gz",
        "flow.nii.gz": f"{head}anat/sub-1_ses-2_run-3_from-{where}_to-x_mode-image_xfm.nii.gz",
        "inverse.nii.gz": f"{head}anat/sub-1_ses-2_run-3_from-x_to-{where}_mode-image_xfm.nii.gz",
        "jacobian.nii.gz": f"{head}anat/sub-1_ses-2_run-3_{grid}_jacobian.nii.gz",
        "qc.png": f"{head}figures/sub-1_ses-2_run-3_qc.png",
        "log.txt": f"{head}provenance/sub-1_ses-2_run-3_log.txt",
    }


def test_scans_of_all_sessions_and_runs_in_the_order_of_names(bids):
    assert subjects(bids) == ["sub-01", "sub-02_ses-a", "sub-02_ses-b_run-1", "sub-02_ses-b_run-2"]


def test_the_choice_narrows_by_participant_session_and_entity(bids):
    assert subjects(bids, participants=("02",), sessions=("b",)) == ["sub-02_ses-b_run-1", "sub-02_ses-b_run-2"]
    assert subjects(bids, filters=(("run", "02"),)) == ["sub-02_ses-b_run-2"], "numbers are equal whatever their zeros"
    bids.scan("sub-01_T2w", 5)
    assert subjects(bids, filters=(("suffix", "T2w"),)) == ["sub-01"]


def test_derived_scans_are_taken_only_where_they_are_asked_for(bids):
    bids.scan("sub-01_space-MNI_desc-preproc_T1w", 5)
    assert subjects(bids, participants=("01",)) == ["sub-01"]
    chosen = Dataset(bids.raw).scans(Choice(filters=(("space", "MNI"), ("desc", "preproc"))))
    assert [(scan.subject, scan.path.name) for scan in chosen] == [
        ("sub-01", "sub-01_space-MNI_desc-preproc_T1w.nii.gz")
    ]


@pytest.mark.parametrize(
    "choice, said",
    [
        ({"participants": ("03",)}, "no folder sub-03 in it; there are sub-01, sub-02"),
        ({"sessions": ("z",)}, "no T1w scan in it with ses-z"),
        ({"filters": (("suffix", "FLAIR"),)}, "no FLAIR scan"),
    ],
)
def test_what_is_asked_for_and_not_there_is_an_error(bids, choice, said):
    with pytest.raises(VolumeError, match=said):
        subjects(bids, **choice)


def test_a_participant_without_a_scan_is_named_and_left_out(bids, caplog):
    (bids.raw / "sub-03" / "func").mkdir(parents=True)
    assert len(subjects(bids)) == 4
    assert "sub-03: no T1w scan, the participant is skipped" in caplog.text


@pytest.mark.parametrize("folder", ["sub-0 1", "sub-..", "sub-", "sub-a_b"])
def test_a_label_that_is_none_is_named_and_left_out(bids, caplog, folder):
    (bids.raw / folder / "anat").mkdir(parents=True)
    (bids.raw / folder / "anat" / f"{folder}_T1w.nii.gz").write_bytes(b"x")
    assert len(subjects(bids)) == 4 and f"{folder}: skipped" in caplog.text


def test_a_file_of_another_participant_in_the_folder_is_left_out(bids, caplog):
    wrong = bids.raw / "sub-01" / "anat" / "sub-02_T1w.nii.gz"
    wrong.write_bytes(b"x")
    (bids.raw / "sub-02" / "ses-a" / "anat" / "sub-02_ses-b_T1w.nii.gz").write_bytes(b"x")
    assert (
        len(subjects(bids)) == 4
        and "names in this folder start with sub-01_" in caplog.text
        and "names in this folder start with sub-02_ses-a_" in caplog.text
    )


def test_two_files_of_one_scan_are_one_scan(bids, caplog):
    path = bids.raw / "sub-01" / "anat" / "sub-01_T1w.nii"
    path.write_bytes(b"x")
    scans = Dataset(bids.raw).scans(Choice(participants=("01",)))
    assert len(scans) == 1 and "has the name of the same scan" in caplog.text


def test_images_that_are_not_read_are_counted_over_the_dataset(bids, caplog):
    for folder, name in (("sub-01/anat", "sub-01_T1w.dcm"), ("sub-02/ses-a/anat", "sub-02_ses-a_T1w.mnc")):
        (bids.raw / folder / name).write_bytes(b"x")
    assert len(subjects(bids)) == 4
    assert f"{bids.raw}: 2 files of kinds that are not read: 1 .dcm (sub-01_T1w.dcm), 1 .mnc" in caplog.text
    assert caplog.text.count("not read") == 1


def test_a_suffix_in_capitals_is_a_nifti(bids):
    path = bids.raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.rename(path.with_name("sub-01_T1w.Nii.GZ"))
    scans = Dataset(bids.raw).scans(Choice(participants=("01",)))
    assert [scan.path.name for scan in scans] == ["sub-01_T1w.Nii.GZ"]


def test_results_do_not_go_among_the_raw_data(bids):
    dataset = Dataset(bids.raw)
    for out in (bids.raw, bids.raw / "results", bids.raw / "sub-01" / "out", bids.raw / "derivatives"):
        with pytest.raises(VolumeError, match="choose"):
            check_output(out, dataset)
    check_output(bids.raw / "derivatives" / "vxm", dataset)


def test_links_are_followed_and_one_to_nothing_still_counts(bids, tmp_path):
    real = bids.raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    elsewhere = tmp_path / "annex"
    os.replace(str(real), str(elsewhere))
    real.symlink_to(elsewhere)
    (bids.raw / "sub-01" / "anat" / "sub-01_acq-lost_T1w.nii.gz").symlink_to(tmp_path / "not there")
    assert subjects(bids, participants=("01",)) == ["sub-01", "sub-01_acq-lost"], (
        "the lost one must fail by name, not vanish"
    )


def test_the_segmentation_is_that_of_freesurfer_first(bids):
    found = {scan.subject: scan.seg_path for scan in Dataset(bids.raw).scans(Choice())}
    assert found["sub-01"].name == "sub-01_desc-aseg_dseg.nii.gz" and found["sub-02_ses-a"] is None
    bids.seg("sub-01/anat/sub-01_dseg.nii.gz", 3)
    again = {scan.subject: scan.seg_path for scan in Dataset(bids.raw).scans(Choice())}
    assert again["sub-01"] == found["sub-01"], "a plain dseg may be tissue classes"


@pytest.mark.parametrize(
    "table, used",
    [
        ("index\tname\n1\tGM\n2\tWM\n3\tCSF\n", False),
        ("index\tname\n2\tLeft-Cerebral-White-Matter\n", True),
        (None, True),
    ],
)
def test_a_plain_dseg_is_used_unless_its_list_names_other_structures(bids, caplog, table, used):
    seg = bids.seg("derivatives/prep/sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz", 2)
    if table:
        bids.write("derivatives/prep/dseg.tsv", table)
    found = {scan.subject: scan.seg_path for scan in Dataset(bids.raw).scans(Choice())}
    assert found["sub-02_ses-a"] == (seg if used else None)
    assert ("assumed to be FreeSurfer's ids" if used else "names other structures") in caplog.text


def test_segmentations_of_another_space_session_or_of_our_own_are_not_taken(bids):
    bids.seg("derivatives/fs/sub-02/ses-a/anat/sub-02_ses-a_space-MNI_desc-aseg_dseg.nii.gz", 1)
    bids.seg("derivatives/fs/sub-02/anat/sub-02_desc-aseg_dseg.nii.gz", 1)
    bids.seg("derivatives/ours/sub-02/ses-a/anat/sub-02_ses-a_desc-aseg_dseg.nii.gz", 1)
    bids.write("derivatives/ours/dataset_description.json", json.dumps({"GeneratedBy": [{"Name": "vxm_convert"}]}))
    assert generated_by_us(bids.raw / "derivatives" / "ours")
    found = {scan.subject: scan.seg_path for scan in Dataset(bids.raw).scans(Choice())}
    assert found["sub-02_ses-a"] is None


@pytest.mark.parametrize("text", ["[1]", "{", "\x00", "[" * 100000])
def test_a_damaged_description_is_one_message(bids, text):
    bids.write("dataset_description.json", text)
    with pytest.raises(VolumeError, match="dataset_description.json"):
        Dataset(bids.raw)
    assert is_dataset(bids.raw), "it must not be read as a plain folder in silence"


def test_a_folder_without_participants_is_no_dataset(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}", encoding="utf-8")
    assert not is_dataset(tmp_path), "a plain folder of scans stays one"
    with pytest.raises(VolumeError, match="no folder sub-<label>"):
        Dataset(tmp_path).scans(Choice())


def test_participants_as_people_write_them(bids, caplog):
    bids.write(
        "participants.tsv",
        '\ufeffage\tparticipant_id\tsite "A"\t\tage\tdice_after\r\n'
        '34\tsub-01\t"x\ty\t1\t0.5\r\n\r\n35\tsub-../x\t\t\t\t\r\n36\tsub-01\t\t\t\t\r\n37\tshort\r\n38\t02\t\tq\t2\t\r\n',
    )
    read = read_participants(bids.raw)
    assert read.columns == ("age", 'site "A"', "dice_after"), "no name and a name twice are left out"
    assert read.rows == {
        "sub-01": {"age": "34", 'site "A"': '"x', "dice_after": "0.5"},
        "sub-02": {"age": "38", 'site "A"': "n/a", "dice_after": "n/a"},
    }
    for said in ("row 3", "row 4", "row 5: 2 cells", "column 4", "column 5"):
        assert said in caplog.text


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "participant_id among them"),
        (b"subject\tage\n", "participant_id among them"),
        (b"participant_id\tn\xe9\n", "not UTF-8"),
        (b"participant_id" + b"\tx" * 3000, "columns"),
    ],
)
def test_a_table_that_is_none_is_one_message(bids, data, said):
    (bids.raw / "participants.tsv").write_bytes(data)
    with pytest.raises(VolumeError, match=said):
        read_participants(bids.raw)


def test_participants_out_have_the_columns_in_the_figures_and_a_dictionary(bids, tmp_path):
    bids.write("participants.tsv", "participant_id\tage\tdice_after\nsub-01\t34\told\n")
    done = {
        "sub-01": [
            {"dice_before": 0.5, "dice_after": 0.7, "jacobian_min": 0.2, "folding_fraction": 0.0},
            {"dice_before": None, "dice_after": 0.5, "jacobian_min": -0.2, "folding_fraction": 0.5},
        ],
        "sub-09": [{}],
    }
    write_participants(tmp_path, read_participants(bids.raw), done, {"sub-01": 1, "sub-02": 2, "sub-03": 0})
    lines = [line.split("\t") for line in (tmp_path / "participants.tsv").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == [
        "participant_id",
        "age",
        "dice_after_source",
        "n_scans",
        "n_failed",
        "dice_before",
        "dice_after",
        "folding_fraction",
        "jacobian_min",
        "flow_max_voxel",
    ]
    assert lines[1] == ["sub-01", "34", "old", "2", "1", "0.5", "0.6", "0.5", "-0.2", "n/a"]
    assert (
        lines[2][:5] == ["sub-02", "n/a", "n/a", "0", "2"]
        and lines[3][:4] == ["sub-09", "n/a", "n/a", "1"]
        and len(lines) == 4
    )
    dictionary = json.loads((tmp_path / "participants.json").read_text(encoding="utf-8"))
    assert set(dictionary) == set(lines[0]) and dictionary["age"] == {"Description": "Age", "Units": "year"}
    assert all(entry["Description"] for entry in dictionary.values())


def test_columns_that_say_who_somebody_is_are_left_out(tmp_path, caplog):
    """A derivative is handed on; what a clinic's table adds to BIDS' columns stays behind, and is named."""
    private = ("Name", "Birth Date", "medical_record_number", "MRN", "date_of_birth", "LastName", "e-mail")
    kept = ("age", "sex", "site_name", "handedness", "group", "diagnosis")
    columns = ("participant_id", *private, *kept)
    lines = ["\t".join(columns), "\t".join(["sub-01"] + ["x"] * (len(columns) - 1))]
    (tmp_path / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_participants(tmp_path)
    assert found.columns == kept and set(found.rows["sub-01"]) == set(kept)
    assert all(repr(name) in caplog.text for name in private)
    out = tmp_path / "out"
    out.mkdir()
    write_participants(out, found, {"sub-01": []}, {})
    written = (out / "participants.tsv").read_text(encoding="utf-8") + (out / "participants.json").read_text("utf-8")
    assert not [name for name in private if name in written]
