# SPDX-License-Identifier: Apache-2.0
"""Profiles: shipped ones, schema, hostile YAML; verdicts on rows; JUnit for any subject's name."""

from __future__ import annotations

import json
import math
import re
import time
from xml.etree import ElementTree

import pytest
import yaml

from om_runner.precision.acceptance import judge_cohort, judge_row
from om_runner.precision.junit import junit_xml, printable
from tests.support.fuzz import outcomes
from vxm_convert.__main__ import PROFILE_ACTIONS, main
from vxm_convert.errors import ArtifactError, FormatError, VxmError
from vxm_convert.metrics.ascend import ASCEND_NAMES
from vxm_convert.profiles import listing
from vxm_convert.profiles import profile as profile_module
from vxm_convert.profiles.limitable_figures import FIGURES
from vxm_convert.profiles.profile import DEFAULT_PROFILE, load_profile, profile_from_bytes, shipped_profiles
from vxm_convert.profiles.schema import json_schema
from vxm_convert.profiles.yamlfile import MAX_BYTES

HEAD = "schema: 1\nname: p\n"


def made(text):
    return profile_from_bytes(text.encode("utf-8"), "p.yaml")


def good_row(**changes):
    output = {
        "n": 10,
        "nan_count": 0,
        "inf_count": 0,
        "max_abs": 1e-3,
        "psnr_db": 90.0,
        "cosine": 1.0,
        "one_minus_cosine": 1e-7,
    }
    row = {
        "moved": {**output, "inside": dict(output), "warp_only": {**output, "max_abs": 1e-6}},
        "flow": dict(output),
        "epe_voxel": {"max": 0.01, "p999": 0.01},
        "epe_mm": {"max": 0.01, "p999": 0.01},
        "sampling": {"floor_flip_fraction": 1e-3},
        "dice": {"n_labels": 30, "min_change": 0.0, "mean_change": 0.0, "offline": 0.7},
        "folding": {"change": 0.0},
    }
    for name, value in changes.items():
        target = row
        *path, last = name.split("__")
        for key in path:
            target = target[key]
        target[last] = value
    return row


def test_three_profiles_are_shipped_and_grow_stricter():
    assert (
        sorted(shipped_profiles()) == ["clinical-strict", "research", "smoke"] and DEFAULT_PROFILE in shipped_profiles()
    )
    limits = {name: {limit.figure.name: limit for limit in load_profile(name).limits} for name in shipped_profiles()}
    for weak, strong in (("smoke", "research"), ("research", "clinical-strict")):
        for name, limit in limits[weak].items():
            stricter = limits[strong][name].value
            assert limit.holds(stricter) and stricter != limit.value, f"{name} in {strong}"
    for name, path in shipped_profiles().items():
        assert load_profile(name).name == name and len(load_profile(name).description) > 40
        lines = path.read_text(encoding="utf-8").splitlines()
        limits_at = [
            at
            for at, line in enumerate(lines)
            if line.startswith("  ") and ": {" in line and not line.lstrip().startswith("#")
        ]
        profile = load_profile(name)
        assert len(limits_at) == len(profile.limits + profile.cohort + profile.plausible)
        assert all(lines[at - 1].lstrip().startswith("#") for at in limits_at), "each limit says why"


def test_a_good_row_passes_every_shipped_profile():
    for name in shipped_profiles():
        assert judge_row(good_row(), load_profile(name)).verdict == "ok"


#: Worst figures over the four brains, measured at full size on the simulated device (docs/precision.md).
@pytest.mark.parametrize(
    "plan, passes",
    [
        (
            dict(
                moved__max_abs=5.3e-3,
                moved__psnr_db=85.9,
                epe_voxel__p999=0.0153,
                epe_voxel__max=0.056,
                epe_mm__p999=0.0153,
                dice__min_change=-0.0012,
                dice__mean_change=-0.00022,
                folding__change=2.2e-6,
            ),
            ["clinical-strict", "research", "smoke"],
        ),
        (
            dict(
                moved__max_abs=5.5e-3,
                moved__psnr_db=80.7,
                epe_voxel__p999=0.0227,
                epe_voxel__max=0.077,
                epe_mm__p999=0.0227,
                dice__min_change=-0.0014,
                dice__mean_change=-0.0003,
                moved__warp_only={"max_abs": 1.3e-3, "n": 1},
            ),
            ["research", "smoke"],
        ),
        (dict(moved__max_abs=3.2e-2, moved__psnr_db=64.2, moved__warp_only={"max_abs": 3.2e-2, "n": 1}), ["smoke"]),
    ],
    ids=["balanced", "fast", "naive warp"],
)
def test_what_the_measured_plans_pass(plan, passes):
    row = good_row(**plan)
    assert [name for name in sorted(shipped_profiles()) if judge_row(row, load_profile(name)).verdict == "ok"] == passes


@pytest.mark.parametrize("count", ["moved__nan_count", "moved__inf_count", "flow__nan_count", "flow__inf_count"])
def test_nan_and_inf_fail_without_any_limit(count):
    judged = judge_row(good_row(**{count: 2}), load_profile("none"))
    (failure,) = judged.failures
    assert (
        failure.figure == count.split("__")[0] + ".non_finite"
        and failure.value == 2
        and "expected none" in failure.text
    )
    assert judge_row({}, load_profile("none")).verdict == "failed", "a row without counts proves nothing"
    assert judge_row(good_row(moved__n=0), load_profile("none")).verdict == "failed"


def test_both_directions_and_the_limit_itself():
    profile = made(HEAD + "limits:\n  moved.max_abs: {max: 0.5}\n  flow.cosine: {min: 0.9}\n")
    assert judge_row(good_row(moved__max_abs=0.5, flow__cosine=0.9), profile).verdict == "ok"
    judged = judge_row(good_row(moved__max_abs=0.500001, flow__cosine=0.899), profile)
    assert [(f.figure, f.relation, f.limit) for f in judged.failures] == [
        ("moved.max_abs", "<=", 0.5),
        ("flow.cosine", ">=", 0.9),
    ]
    assert judged.failures[0].text == "moved.max_abs is 0.500001, limit <= 0.5 (intensity (full scale 1))"


def test_undefined_figures():
    profile = made(HEAD + "limits:\n  moved.inside.psnr_db: {min: 50}\n  moved.psnr_db: {min: 50}\n")
    equal = good_row(moved__psnr_db=None, moved__max_abs=0.0, moved__inside=None)
    judged = judge_row(equal, profile)
    assert [f.figure for f in judged.failures] == ["moved.inside.psnr_db"], (
        "equal images have no PSNR and pass; no inside is no pass"
    )
    assert judged.failures[0].value is None and "undefined" in judged.failures[0].text
    assert judge_row(good_row(moved__psnr_db=math.nan), profile).failures[0].figure == "moved.psnr_db", (
        "NaN is not a perfect one"
    )
    allowed = made(HEAD + "limits:\n  moved.inside.psnr_db: {min: 50, optional: true}\n")
    assert [c.figure for c in judge_row(equal, allowed).checks if c.skipped] == ["moved.inside.psnr_db"]


def test_dice_is_skipped_without_labels_only():
    profile = made(HEAD + "limits:\n  dice.min_change: {min: -0.005}\n")
    for missing in (None, {"n_labels": 0, "min_change": math.nan}):
        judged = judge_row(good_row(dice=missing), profile)
        assert judged.verdict == "ok" and judged.to_dict()["skipped"][0]["figure"] == "dice.min_change"
    assert judge_row(good_row(dice={"n_labels": 3, "min_change": None}), profile).verdict == "failed"


def test_the_cohort_is_judged_by_means():
    profile = made(HEAD + "limits: {}\ncohort:\n  dice.mean_change: {min: -0.001}\n  flow.cosine: {min: 0.5}\n")
    rows = [good_row(dice__mean_change=-0.003), good_row(dice__mean_change=0.002), good_row(dice=None)]
    assert judge_cohort(rows, profile).verdict == "ok"
    judged = judge_cohort(rows[:1] + rows[2:], profile)
    assert judged.failures[0].text.startswith("mean over n = 1 scans of dice.mean_change is -0.003")
    assert judge_cohort([{}], profile).failures[0].figure == "flow.cosine"


@pytest.mark.parametrize(
    "text, words",
    [
        ("limts: {}\n", "unknown key 'limts'; did you mean 'limits'"),
        ("limits:\n  moved.maxabs: {max: 1}\n", "unknown key 'moved.maxabs'; did you mean 'moved.max_abs'"),
        ("limits:\n  moved.max_abs: {maximum: 1}\n", "unknown key 'maximum'; did you mean 'max'"),
        ("limits:\n  moved.max_abs: {min: 1}\n", "expected max: smaller values are better"),
        ("limits:\n  moved.max_abs: {}\n", "got nothing, expected max"),
        ("limits:\n  moved.max_abs: {max: 1, min: 0}\n", "expected max"),
        ("limits:\n  moved.max_abs: 0.01\n", r"got 0.01, expected \{max: NUMBER\}"),
        ("limits:\n  moved.max_abs: {max: '0.01'}\n", "'0.01', expected a finite number"),
        ("limits:\n  moved.max_abs: {max: yes}\n", "True, expected a finite number"),
        ("limits:\n  moved.max_abs: {max: .nan}\n", "nan, expected a finite number"),
        ("limits:\n  moved.max_abs: {max: .inf}\n", "inf, expected a finite number"),
        ("limits:\n  moved.max_abs: {max: -0.01}\n", "expected 0 to inf"),
        (
            "limits:\n  moved.max_abs: {max: 1" + 5000 * "0" + "}\n",
            "expected a finite number|not YAML .Exceeds the limit",
        ),
        ("limits:\n  moved.max_abs: {max: 2020-13-45}\n", "not YAML .month must be in"),
        ("limits:\n  flow.cosine: {min: 1.5}\n", "expected -1 to 1"),
        ("limits:\n  flow.cosine: {min: 0.9, optional: 1}\n", "expected true or false"),
        (
            "limits:\n  flow.cosine: {min: 0.9}\n  flow.cosine: {min: 0.1}\n",
            "line 5: the key 'flow.cosine' appears twice",
        ),
        ("limits: []\n", r"limits is \[\], expected figures"),
        ("limits: 3\n", "limits is 3"),
        ("limits: {}\ncohort:\n  moved: {max: 1}\n", "cohort: unknown key 'moved'"),
        ("limits: &a {}\ncohort: *a\n", "line 4: aliases are not allowed"),
        ("limits: {}\n<<: {name: q}\n", "unknown key '<<'"),
        ("limits: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("limits: {}\n? [1, 2]\n: 3\n", "line 4: a key is a list"),
        ("limits: {}\nyes: 3\n", "unknown key 'yes'"),
        ("limits: {}\n---\nschema: 1\n", "single document"),
        ("limits: {{{{{{{{}}}}}}}}\n", "line 3: a key is a list or a mapping"),
        ("limits: {}\ndescription: [[[[[[[[1]]]]]]]]\n", "expected a text"),
        ("limits: {\n", "not YAML"),
        ("limits: {}\ndescription: \0\n", "not YAML"),
        ("limits: {}\ndescription: 3\n", "description is 3, expected a text"),
        ("limits: {}\ndescription: " + 3000 * "x" + "\n", "at most 2000"),
    ],
)
def test_what_a_profile_must_not_hold(text, words):
    with pytest.raises(FormatError, match=words) as caught:
        made(HEAD + text)
    assert str(caught.value).startswith("p.yaml") and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "expected keys"),
        ("- 1\n", "expected keys"),
        ("name: x\nlimits: {}\n", "schema is None"),
        ("schema: 2\nname: x\nlimits: {}\n", "schema is 2, expected 1"),
        ("schema: true\nname: x\nlimits: {}\n", "schema is True"),
        ("schema: 1\nlimits: {}\n", "name is None"),
        ("schema: 1\nname: ' '\nlimits: {}\n", "name is empty"),
        ("schema: 1\nname: x\n", "limits is None"),
    ],
)
def test_the_top_of_a_profile(text, words):
    with pytest.raises(FormatError, match=words):
        made(text)


@pytest.mark.any_python("what refuses here is PyYAML, written in Python and the same on both")
def test_an_alias_bomb_and_much_text_are_refused_quickly(tmp_path):
    bomb = HEAD + "a: &a [x,x,x]\n" + "".join(f"{n}: &{n} [*{p},*{p},*{p}]\n" for p, n in zip("abcdefgh", "bcdefghi"))
    with pytest.raises(FormatError, match="aliases are not allowed"):
        made(bomb)
    with pytest.raises(FormatError, match="recursion"):
        made(HEAD + "limits: " + "[" * 50000)
    started = time.perf_counter()
    crowded = HEAD + "limits: {}\ndescription: {" + ", ".join(f"k{i}: 1" for i in range(6000)) + "}\n"
    with pytest.raises(FormatError, match="expected a text"):
        made(crowded)
    assert len(crowded) > 0.8 * MAX_BYTES and time.perf_counter() - started < 30
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(FormatError, match=f"expected at most {MAX_BYTES} for a profile"):
        load_profile(str(big))


def test_files_that_are_none(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(HEAD.encode() + b"description: \xe9\n")
    with pytest.raises(FormatError, match="not UTF-8"):
        load_profile(str(tmp_path / "latin.yaml"))
    for name in (str(tmp_path), str(tmp_path / "nothing.yaml"), ""):
        with pytest.raises(ArtifactError, match="neither a file nor one of clinical-strict, research, smoke, none"):
            load_profile(name)


def test_names_come_before_files_and_files_are_named_as_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("research", "mine", "mine.yaml"):
        (tmp_path / name).write_text(HEAD.replace("name: p", f"name: own {name}") + "limits: {}\n")
    assert load_profile("research").name == "research" and load_profile("./research").name == "own research"
    assert load_profile("mine.yaml").name == "own mine.yaml"
    with pytest.raises(ArtifactError, match="write ./mine for the file"):
        load_profile("mine")


@pytest.mark.any_python("what refuses here is PyYAML, written in Python and the same on both")
def test_every_cut_and_many_flips_of_a_profile_end_in_our_errors():
    data = shipped_profiles()["research"].read_bytes()
    places = range(0, len(data), 7)
    cut = [data[:at] for at in places]
    flipped = [data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :] for at in places]
    taken, refused = outcomes(lambda changed: profile_from_bytes(changed, "x"), data, cut + flipped, VxmError)
    assert taken > 20 and refused > 20, (taken, refused)


def test_numbers_as_people_write_them():
    limits = {"1e-3": 1e-3, "1E-3": 1e-3, ".5": 0.5, "2": 2.0, "+1.5e+1": 15.0}
    for text, value in limits.items():
        assert made(HEAD + f"limits:\n  moved.max_abs: {{max: {text}}}\n").limits[0].value == value


def test_schema_and_registry_are_in_step():
    written = json.loads((shipped_profiles()["research"].parent / "profile.schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(), "write it anew: python -m vxm_convert profiles schema"
    definitions = written["definitions"]
    assert set(definitions["figures"]["properties"]) == set(FIGURES)
    for figure in FIGURES.values():
        known = definitions[definitions["figures"]["properties"][figure.name]["$ref"].rpartition("/")[2]]
        assert known["required"] == [figure.key]
    assert set(written["properties"]) == set(profile_module.TOP_KEYS)


def test_schema_and_code_accept_and_refuse_alike():
    jsonschema = pytest.importorskip("jsonschema", reason="the schema is checked where jsonschema is installed")
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    for path in shipped_profiles().values():
        validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    for figure in FIGURES.values():
        for entry in (
            {figure.key: 0.5},
            {figure.key: -2e9},
            {figure.key: 2e9},
            {figure.key: "1"},
            {},
            {figure.key: 0.5, "optional": 1},
            {figure.key: True},
            {"max": 0.5, "min": 0.5},
        ):
            content = {"schema": 1, "name": "x", "limits": {figure.name: entry}}
            try:
                made(json.dumps(content))
                accepted = True
            except FormatError:
                accepted = False
            assert validator.is_valid(content) == accepted, (figure.name, entry)


def test_the_command_lists_shows_and_explains(capsys):
    assert PROFILE_ACTIONS == listing.ACTIONS
    assert main(["profiles"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in shipped_profiles()) and "default" in out
    assert main(["profiles", "show", "research"]) == 0
    shown = capsys.readouterr().out
    limit = next(limit for limit in load_profile("research").limits if limit.figure.name == "moved.psnr_db")
    assert f"moved.psnr_db >= {limit.value:g} dB" in " ".join(shown.split())
    assert main(["profiles", "figures"]) == 0
    figures = capsys.readouterr().out
    assert all(name in figures for name in FIGURES)
    assert main(["profiles", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert main(["profiles", "show", "reserch"]) == 1
    assert "did you mean 'research'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["a/b", "<&\"'>", "tab\tand\nline", "bell\x07", "\x00", "\udcff undecodable", "\ufffe", "Ünïcode 🧠", "]]>"]
)
def test_junit_carries_any_name(name):
    judged = judge_row(good_row(moved__max_abs=1.0), load_profile("research"))
    root = ElementTree.fromstring(
        junit_xml("s" + name, [(name, judged, 1.5)], judge_cohort([], load_profile("none")), {"k": name})
    )
    case = next(root.iter("testcase"))
    assert (
        printable(name).split()[0] in case.get("classname")
        and len(list(root.iter("failure"))) == len(judged.failures) == 1
    )
    assert printable("\x07") == "\\x07" and printable("\udcff") == "\\udcff" and printable("🧠") == "🧠"


def test_junit_counts_skipped_cases_and_the_cohort():
    profile = made(HEAD + "limits:\n  dice.min_change: {min: 0}\ncohort:\n  moved.max_abs: {max: 0.1}\n")
    row = good_row(dice=None)
    (suite,) = ElementTree.fromstring(
        junit_xml("s", [("a", judge_row(row, profile), 0.0)], judge_cohort([row], profile), {})
    )
    assert (suite.get("tests"), suite.get("skipped"), suite.get("failures")) == ("4", "1", "0")
    assert [case.get("classname") for case in suite.iter("testcase")] == ["subject.a"] * 3 + ["cohort"]


def table_behind(text, heading):
    """Rows of the first table behind a piece of text, as lists of cells."""
    lines = text[text.index(heading) :].splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def test_the_table_of_limits_in_the_documentation_is_that_of_the_code(project_root):
    head, _, *rows = table_behind(
        (project_root / "docs" / "precision.md").read_text(encoding="utf-8"), "## Acceptance profiles"
    )
    shown = {(name, row[0]): cell for row in rows for name, cell in zip(head[2:], row[2:]) if cell != "–"}
    signs = {"<=": "≤", ">=": "≥"}
    limits = {
        (name, limit.figure.name): f"{signs[limit.figure.relation]} {limit.value:g}"
        for name in shipped_profiles()
        for limit in load_profile(name).limits
    }
    assert shown == limits and all(FIGURES[row[0]].unit == row[1] for row in rows)


def test_the_table_of_ascends_figures_is_that_of_the_code(project_root):
    rows = table_behind((project_root / "docs" / "precision.md").read_text(encoding="utf-8"), "**Ascend's comparer.**")[
        2:
    ]
    assert tuple(row[0] for row in rows) == ASCEND_NAMES


def test_the_example_in_the_documentation_is_a_profile(project_root):
    text = (project_root / "docs" / "precision.md").read_text(encoding="utf-8")
    example = re.search(r"A custom profile:\n\n```\n(.*?)```", text, flags=re.DOTALL).group(1)
    profile = made(example)
    assert profile.name == "my-study" and len(profile.limits) == 3 and len(profile.cohort) == 1
