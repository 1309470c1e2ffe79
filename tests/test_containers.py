# SPDX-License-Identifier: Apache-2.0
"""The recipes of images, by their text: no container engine is here to build them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import List, Tuple

import pytest

pytestmark = pytest.mark.any_python("reads the texts of this project")

DOCKERFILES = ("Dockerfile", "Dockerfile.ascend")
INSTRUCTIONS = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "HEALTHCHECK", "CMD", "ENTRYPOINT"}


def instructions(path: Path) -> List[Tuple[str, str]]:
    """(instruction, arguments), comments left out and continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined if line.strip()]


def copied(project_root: Path, name: str) -> List[Path]:
    """What a recipe takes from the tree."""
    path = project_root / "containers" / name
    if name.startswith("Dockerfile"):
        return [
            project_root / source for word, rest in instructions(path) if word == "COPY" for source in rest.split()[:-1]
        ]
    files = re.search(r"^%files\n((?: .*\n)+)", path.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    return [project_root / line.split()[0] for line in files.splitlines()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_recipe_is_well_formed(project_root: Path, name: str) -> None:
    found = instructions(project_root / "containers" / name)
    assert {word for word, _ in found} <= INSTRUCTIONS
    words = [word for word, _ in found]
    assert words[0] == "ARG" and words[1] == "FROM" and words[-1] == "CMD" and "HEALTHCHECK" in words
    for word, rest in found:
        if word == "RUN":
            shlex.split(rest)
    users = [rest for word, rest in found if word == "USER"]
    assert users[-1] == "vxm"
    assert "doctor" in dict(found)["HEALTHCHECK"]


@pytest.mark.parametrize("name", DOCKERFILES + ("vxm.def",))
def test_a_recipe_takes_what_is_there_and_runs_the_steps_of_make_setup(project_root: Path, name: str) -> None:
    sources = copied(project_root, name)
    assert sources and all(source.exists() for source in sources)
    taken = {source.name for source in sources}
    assert {"vxm_convert", "train", "export", "om_runner", "models", "pyproject.toml", "setup.py"} <= taken
    assert not {"tests", "docs"} & taken
    text = (project_root / "containers" / name).read_text(encoding="utf-8")
    make = (project_root / "Makefile").read_text(encoding="utf-8")
    assert "scripts/setup.sh 3.7" in make and re.search(r"scripts/setup\.sh (3\.7|\$\{PART\}) /opt/vxm/env", text)


def test_nothing_that_is_copied_is_ignored(project_root: Path) -> None:
    kept = {line[1:] for line in (project_root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in DOCKERFILES:
        for source in copied(project_root, name):
            assert source.relative_to(project_root).parts[0] in kept, source


def test_the_cann_image_is_an_argument(project_root: Path) -> None:
    found = instructions(project_root / "containers" / "Dockerfile.ascend")
    assert found[:2] == [("ARG", "CANN_IMAGE"), ("FROM", "${CANN_IMAGE}")]
