# SPDX-License-Identifier: Apache-2.0
"""The documents check themselves: links, pictures, commands and their options, and the tables that restate what the
code says.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

from om_runner.results.columns import COLUMNS, FailureRow
from tests.support.command_lines import (
    COMMANDS,
    MORE_SUBCOMMANDS,
    PARTS,
    SUBCOMMANDS,
    help_of,
    make_targets,
    options_in,
)
from vxm_convert.formats.ge_ir import DTYPE_NUMBERS
from vxm_convert.formats.om import HEADER, PARTITION_NAMES
from vxm_convert.model.precision import PLANS

pytestmark = pytest.mark.any_python("reads the texts of this project")

DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/commands.md",
    "docs/install.md",
    "docs/api.md",
    "docs/precision.md",
    "docs/formats.md",
    "docs/ascend.md",
    "docs/training.md",
    "docs/geometry.md",
    "docs/bids.md",
    "docs/running.md",
    "docs/scale.md",
    "docs/qc.md",
    "docs/benchmarks.md",
    "README.zh-CN.md",
    "docs/zh/quickstart.md",
    "docs/zh/ascend.md",
    "docs/zh/training.md",
    "docs/zh/precision.md",
    "examples/README.md",
)
#: page in Chinese → its page in English
TRANSLATIONS = {
    "README.zh-CN.md": "README.md",
    "docs/zh/quickstart.md": "docs/install.md",
    "docs/zh/ascend.md": "docs/ascend.md",
    "docs/zh/training.md": "docs/training.md",
    "docs/zh/precision.md": "docs/precision.md",
}
MAX_PICTURE_BYTES = 150_000
MAX_README_LINES = 120
NOT_OURS = {"pytest", "pip", "venv"}


def read(project_root: Path, name: str) -> str:
    return (project_root / name).read_text(encoding="utf-8")


def code_of(text: str) -> str:
    """What is set as code: fenced and indented lines, and spans between backticks, which may break over two lines."""
    fenced = re.findall(r"^```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (\S.*)$", rest, flags=re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    return "\n".join(fenced + indented + spans)


def commands_in(code: str) -> Iterator[Tuple[str, str]]:
    """(module, rest of the line) of every ``python -m``."""
    for module, rest in re.findall(r"python -m ([a-z_.]+)([^\n)]*)", code):
        if module not in NOT_OURS:
            yield module, rest


def anchors(text: str) -> Set[str]:
    """Anchors of the headings, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def first_column(text: str, heading: str) -> List[str]:
    """Code spans in the first column of the first table behind a piece of text."""
    table = re.search(r"(?:^\|.*\n)+", text[text.index(heading) :], flags=re.MULTILINE).group(0)
    return [name for line in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def tables_in(text: str) -> List[str]:
    """Blocks of lines that start with a bar; a blank line ends a block."""
    return re.findall(r"(?:^[ ]*\|.*\n)+", text, flags=re.MULTILINE)


def test_the_list_of_documents_is_complete(project_root: Path) -> None:
    assert {f"docs/{path.name}" for path in (project_root / "docs").glob("*.md")} <= set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(project_root: Path, name: str) -> None:
    document = project_root / name
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", read(project_root, name)):
        path = document.parent / target if target else document
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{name}: {target}#{anchor}"


def test_pictures_are_small_and_say_how_they_were_made(project_root: Path) -> None:
    readme = read(project_root, "README.md")
    shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", readme)
    files = {str(p.relative_to(project_root)) for p in (project_root / "docs" / "pictures").iterdir()}
    plots = re.findall(r"!\[[^\]]{20,}\]\((pictures/[^)]+\.svg)\)", read(project_root, "docs/benchmarks.md"))
    assert {target for _, target in shown} | {f"docs/{target}" for target in plots} == files
    assert all((project_root / "docs" / plot).stat().st_size <= MAX_PICTURE_BYTES for plot in plots)
    for words, target in shown:
        data = (project_root / target).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) <= MAX_PICTURE_BYTES, target
        assert len(words) > 20, f"{target}: no description for those who cannot see it"
        caption = readme[readme.index(target) :].split("\n\n")[1]
        assert "python -m scripts.picture" in caption


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(project_root: Path, name: str) -> None:
    code = code_of(read(project_root, name))
    targets = make_targets(read(project_root, "Makefile"))
    used = set(re.findall(r"^make ([a-z][a-z-]*)", code, flags=re.MULTILINE))
    assert used <= targets
    for module, rest in commands_in(code):
        assert module in COMMANDS + PARTS, f"{name}: python -m {module}"
        words = rest.split()
        sub = [word for word in words[:1] if word in SUBCOMMANDS + MORE_SUBCOMMANDS.get(module, ())]
        assert options_in(rest) <= options_in(help_of(module, *sub)), f"{name}: python -m {module}{rest}"


def test_the_commands_page_covers_every_target_and_command(project_root: Path) -> None:
    code = code_of(read(project_root, "docs/commands.md"))
    assert make_targets(read(project_root, "Makefile")) <= set(
        re.findall(r"^make ([a-z][a-z-]*)", code, flags=re.MULTILINE)
    )
    named = {(module, word) for module, rest in commands_in(code) for word in (rest.split() or [""])[:1]}
    assert {module for module, _ in named} == set(COMMANDS)
    assert {word for module, word in named if module == "vxm_convert"} == set(SUBCOMMANDS)
    for module, verbs in MORE_SUBCOMMANDS.items():
        assert set(verbs) <= {word for name, word in named if name == module}


def test_the_verbs_listed_here_are_those_of_the_commands() -> None:
    for module, verbs in MORE_SUBCOMMANDS.items():
        assert set(verbs) == set(importlib.import_module(module + ".__main__").VERBS)


def test_every_option_in_readme_and_commands_is_one_of_ours(project_root: Path) -> None:
    known: Set[str] = set()
    for module in COMMANDS:
        known |= options_in(help_of(module))
    for sub in SUBCOMMANDS:
        known |= options_in(help_of("vxm_convert", sub))
    for module, subs in MORE_SUBCOMMANDS.items():
        known |= {option for sub in subs for option in options_in(help_of(module, sub))}
    for name in ("README.md", "docs/commands.md"):
        found = options_in(code_of(read(project_root, name)))
        assert found and found <= known, name


def test_the_readme_is_short(project_root: Path) -> None:
    assert len(read(project_root, "README.md").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_are_whole(project_root: Path, name: str) -> None:
    prose = re.sub(r"^```.*?^```", "", read(project_root, name), flags=re.MULTILINE | re.DOTALL)
    for table in tables_in(prose):
        rows = [re.split(r"(?<!\\)\|", line) for line in table.splitlines()]
        assert len(rows) > 2 and set("".join(rows[1])) <= set("- :"), f"{name}: no header above {table[:80]!r}"
        assert {len(row) for row in rows} == {len(rows[0])}, f"{name}: rows of different length below {table[:80]!r}"


def test_a_blank_line_in_a_table_is_noticed() -> None:
    assert len(tables_in("| a |\n|---|\n| 1 |\n\n| 2 |\n| 3 |\n")) == 2


def test_every_figure_has_its_command_and_toolchain(project_root: Path) -> None:
    text = read(project_root, "README.md")
    table = tables_in(text[text.index("## Figures") :])[0].splitlines()
    assert table[0] == "| what | figure | n | command | toolchain |" and len(table) > 4
    targets = make_targets(read(project_root, "Makefile"))
    for line in table[2:]:
        _, _, figure, n, command, toolchain, _ = (cell.strip() for cell in line.split("|"))
        assert re.search(r"\d", figure) and re.match(r"\d+ \w+$", n), line
        assert re.match(r"`make ([a-z-]+)`$", command).group(1) in targets, line
        assert toolchain == "none" or re.match(r"(simulator|CANN \S+), `(\w+)`$", toolchain).group(2) in PLANS, line


def test_every_package_is_in_the_readme(project_root: Path) -> None:
    """Names in pyproject.toml's lists of requirements, each with a line of its own."""
    project = read(project_root, "pyproject.toml")
    lists = re.findall(r"^(?:dependencies|train|cluster|test) = \[(.*?)\]$", project, flags=re.MULTILINE | re.DOTALL)
    names = {re.match(r"[\w-]+", item).group(0).lower() for text in lists for item in re.findall(r'"([^"]+)"', text)}
    text = read(project_root, "README.md")
    table = tables_in(text[text.index("## Dependencies") :])[0].splitlines()[2:]
    assert len(lists) == 4 and sorted(line.split("|")[1].split()[0].lower() for line in table) == sorted(names)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_variables_exist(project_root: Path, name: str) -> None:
    known = set(re.findall(r"^([A-Z_0-9]+)\s*\?=", read(project_root, "Makefile"), flags=re.MULTILINE)) | {
        "PYTHON37",
        "PYTHON_CURRENT",
    }
    lines = [line for line in code_of(read(project_root, name)).splitlines() if re.match(r"make |[A-Z_0-9]+=", line)]
    used = {variable for line in lines for variable in re.findall(r"\b([A-Z][A-Z_0-9]*)=", line)}
    assert {variable for variable in used if not variable.startswith("VXM_")} <= known


def test_environment_variables_are_listed(project_root: Path) -> None:
    sources = [
        p for folder in ("vxm_convert", "train", "export", "om_runner") for p in (project_root / folder).rglob("*.py")
    ]
    used = {v for p in sources for v in re.findall(r"\bVXM_[A-Z_]+\b", p.read_text(encoding="utf-8"))}
    # Set by `sim env` for its own shim; nobody else sets it.
    used.discard("VXM_SIM_PYTHON")
    assert used == set(first_column(read(project_root, "docs/architecture.md"), "## The toolchain seam"))


def files_named_in(text: str) -> Set[str]:
    """Code spans that name a Python file, or a path below one of our folders."""
    spans = {span.split(":")[0] for span in re.findall(r"`([\w./:-]+)`", text)}
    ours = re.compile(r"(?:vxm_convert|export|train|om_runner|tests|scripts|sim)/[\w./]+|[\w./]+\.py")
    return {span for span in spans if ours.fullmatch(span)}


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_files_named_in_a_document_exist(project_root: Path, name: str) -> None:
    """A path starts at the project, in vxm_convert/, or in vxm_convert/sim/engine/; a bare name is that of some module."""
    homes = [project_root / place for place in ("", "vxm_convert", "vxm_convert/sim/engine", "examples")]
    modules = {
        p.name
        for folder in ("vxm_convert", "export", "train", "om_runner")
        for p in (project_root / folder).rglob("*.py")
    }
    named = files_named_in(read(project_root, name))
    lost = [n for n in named if not any((home / n).exists() for home in homes) and ("/" in n or n not in modules)]
    assert not lost
    assert len(named) > 15 or name not in ("docs/architecture.md", "docs/precision.md")


def test_an_old_module_name_is_noticed() -> None:
    assert files_named_in("`cohortrun.py`, `sim/op_table.py:row`, `a b.py`, `--out`, `acl.mdl`") == {
        "cohortrun.py",
        "sim/op_table.py",
    }


def test_exit_codes_and_presets_are_on_the_commands_page(project_root: Path) -> None:
    text = read(project_root, "docs/commands.md")
    assert re.findall(r"\*\*([0-9])\*\*", text) == ["0", "1", "2", "3"]
    assert first_column(text, "## Precision plans") == sorted(PLANS, key=list(PLANS).index)


def test_the_header_table_is_that_of_the_code(project_root: Path) -> None:
    written: Dict[int, int] = {}
    for offsets, sizes in re.findall(
        r"^\| (\d[\d, ]*) \| (\d[\d, ]*) \|", read(project_root, "docs/formats.md"), flags=re.MULTILINE
    ):
        written.update(zip(map(int, offsets.split(",")), map(int, sizes.split(","))))
    assert written == {HEADER.fields[name][1]: HEADER.fields[name][0].itemsize for name in HEADER.names}


def test_numbers_of_the_om_format_are_those_of_the_code(project_root: Path) -> None:
    text = read(project_root, "docs/formats.md")
    partitions = re.findall(r"\b(\d+)(?: \| | )([A-Z_]{5,})\b", text)
    assert len(partitions) >= 6
    assert all(PARTITION_NAMES[int(number)] == name for number, name in partitions)
    types = dict(re.findall(r"\b(\d+)\s+((?:u?int|float)\d+|bool)\b", text[text.index("Data types:") :]))
    assert {name: int(number) for number, name in types.items()} == DTYPE_NUMBERS


def test_columns_of_the_tables_are_those_of_the_code(project_root: Path) -> None:
    text = read(project_root, "docs/formats.md")
    assert sorted(first_column(text, "**metrics.tsv**")) == sorted(COLUMNS)
    failures = re.search(r"\*\*failures.tsv\*\*: (.*?)\*\*run.json", text, flags=re.DOTALL).group(1)
    assert set(f.name for f in fields(FailureRow)) <= set(re.findall(r"`(\w+)`", failures))


def command_lines(text: str) -> List[str]:
    """Lines that a reader types: in indented and console blocks, continued ones joined."""
    typed = re.findall(
        r"^(?:    |\$ )((?:make|python|\.venv|docker|apptainer|source|xdg-open|eval|mkdir|grep|pip|vxm|VXM)\S* .*)$",
        text.replace("\\\n", " "),
        flags=re.MULTILINE,
    )
    return [" ".join(re.sub(r"\s#.*", "", line).split()) for line in typed]


@pytest.mark.parametrize("chinese, english", list(TRANSLATIONS.items()))
def test_commands_are_the_same_in_both_languages(project_root: Path, chinese: str, english: str) -> None:
    ours, theirs = (read(project_root, name) for name in (chinese, english))
    assert command_lines(theirs)
    assert sorted(command_lines(ours)) == sorted(command_lines(theirs))


def test_a_command_in_one_language_only_is_noticed() -> None:
    text = "    make demo  OUT=x   # all\n\n    docker run \\\n        -it IMAGE\n\n$ pip install x\nmake nothing\n"
    assert command_lines(text) == ["make demo OUT=x", "docker run -it IMAGE", "pip install x"]


def test_chinese_is_linked_from_the_top(project_root: Path) -> None:
    assert "(README.zh-CN.md)" in "".join(read(project_root, "README.md").splitlines(keepends=True)[:4])
    linked = read(project_root, "README.zh-CN.md")
    assert all(f"({name})" in linked for name in TRANSLATIONS if name.startswith("docs/zh/"))
