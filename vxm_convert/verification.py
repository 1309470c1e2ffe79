# SPDX-License-Identifier: Apache-2.0
"""Proves offline that files are those their side-cars, contracts and run.json recorded. Reads only; repairs nothing."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from vxm_convert.artifacts import sha256_of
from vxm_convert.contract import CONTRACT_NAME, GraphContract
from vxm_convert.errors import ArtifactError, VxmError
from vxm_convert.inspection import read_json

OK = "ok"
BROKEN = "BROKEN"
OUTSIDE = "outside"
UNPROVEN = "unproven"

#: what om_runner writes beside its results: where the model, the atlas and the scans lay, with their hashes
RUN_NAME = "run.json"
#: role in a contract or side-car → the file of that role, in the same folder
ROLE_FILES = {"frozen_pb": "frozen.pb", "onnx": "vxm.onnx", "om": "vxm.om"}
_RECORDS = (CONTRACT_NAME, RUN_NAME)
_ADVICE = "pass a folder that train, export or om_runner wrote"
_CHANGED = "it was changed afterwards: make it again"


@dataclass(frozen=True)
class Link:
    """One checked statement.

    Parameters
    ----------
    state : str — ok; BROKEN; outside: made from something that is not in the checked folders; unproven: nothing recorded to check,
        or the file it was made from is itself broken.
    subject : Path — the file it is about.
    text : str — what was found.
    """

    state: str
    subject: Path
    text: str


class _Known:
    """Recorded hashes: which file carries each, and whether that file still has these bytes."""

    def __init__(self) -> None:
        self._files: Dict[str, Tuple[Path, bool]] = {}

    def add(self, digest: str, link: Link) -> None:
        """Remember the file of a checked link; one sound copy outweighs a broken one."""
        if link.state == OK or (link.state == BROKEN and digest not in self._files):
            self._files[digest] = (link.subject, link.state == OK)

    def link(self, subject: Path, role: str, digest: str) -> Link:
        """Whether what `subject` was made from is here and sound."""
        source = f"was made from {role} {digest[:12]}"
        if digest not in self._files:
            return Link(OUTSIDE, subject, f"{source}, which is in none of the folders")
        path, sound = self._files[digest]
        if not sound:
            return Link(UNPROVEN, subject, f"{source}, but {path} is no longer that file")
        return Link(OK, subject, f"{source}, which is here: {path.name}")


def verify_folders(folders: Sequence[Path]) -> List[Link]:
    """Check every side-car, contract and run.json under the folders; of a run.json also the files it names elsewhere.

    Raises
    ------
    ArtifactError
        A folder does not exist, or nothing in it carries a side-car or a contract.
    """
    documents = [path for folder in folders for path in _json_files(Path(folder))]
    loaded = {path: _load(path) for path in documents}
    sidecars = {path: data for path, data in sorted(loaded.items()) if path.name not in _RECORDS and _is_sidecar(data)}
    contracts = [path for path in documents if path.name == CONTRACT_NAME]
    if not sidecars and not contracts:
        names = ", ".join(str(f) for f in folders)
        raise ArtifactError(f"{names}: no side-car (<file>.json) and no {CONTRACT_NAME} there; {_ADVICE}")
    known = _Known()
    links = []
    for path, data in sidecars.items():
        links.append(_check_file(path, data))
        known.add(str(data["sha256"]), links[-1])
    for path, data in loaded.items():
        if path.name == RUN_NAME:
            links += _check_run(path, data, known)
    for path in contracts:
        links += _check_contract(path, known)
    for path, data in sidecars.items():
        links += _check_sources(path, data["made_from"], known)
    return links + [_unproven(path) for path, data in sorted(loaded.items()) if path not in sidecars and _describes_a_file(path, data)]


def _json_files(folder: Path) -> List[Path]:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; {_ADVICE}")
    return sorted(p for p in folder.rglob("*.json") if p.is_file())


def _load(path: Path) -> Any:
    try:
        return read_json(path)
    except VxmError as exc:
        # A damaged side-car must not be passed over: it becomes a broken link of the file it belongs to.
        return {"file": path.name[: -len(".json")], "sha256": "", "made_from": {}, "damaged": str(exc)}


def _is_sidecar(data: Any) -> bool:
    return isinstance(data, dict) and {"file", "sha256", "made_from"} <= set(data) and isinstance(data["made_from"], dict)


def _describes_a_file(path: Path, data: Any) -> bool:
    return isinstance(data, dict) and "file" in data and (path.parent / path.name[: -len(".json")]).is_file()


def _unproven(side: Path) -> Link:
    return Link(UNPROVEN, side.parent / side.name[: -len(".json")], f"its side-car {side.name} records no sha256 or no sources")


def _check_file(side: Path, data: Dict[str, Any]) -> Link:
    subject = side.parent / side.name[: -len(".json")]
    if "damaged" in data:
        return Link(BROKEN, subject, f"its side-car cannot be read: {data['damaged']}")
    # The name is compared, never followed: a side-car cannot point out of its folder.
    if data["file"] != subject.name:
        return Link(BROKEN, subject, f"its side-car {side.name} describes {data['file']!r}")
    if not subject.is_file():
        return Link(BROKEN, subject, f"is gone, its side-car {side.name} is still there")
    return _compare(subject, str(data["sha256"]), f"recorded in {side.name}")


def _check_run(path: Path, data: Any, known: _Known) -> Iterator[Link]:
    """The files that a run read, wherever they lie. Only regular files are read, and nothing of them is shown but their hash."""
    try:
        sources = _run_sources(data)
    except (KeyError, TypeError, AttributeError) as exc:
        reason = data["damaged"] if isinstance(data, dict) and "damaged" in data else f"{type(exc).__name__}: {exc}"
        yield Link(BROKEN, path, f"does not name model, atlas and inputs as a run does ({reason}); register again")
        return
    for role, name, digest in sources:
        source = Path(name)
        if not _is_file(source):
            yield Link(OUTSIDE, path, f"the run read {role} {digest[:12]} from {source}, which is there no more")
            continue
        link = _compare(source, digest, f"recorded in {path.name} as {role}")
        known.add(digest, link)
        yield link


def _run_sources(data: Any) -> List[Tuple[str, str, str]]:
    """(role, absolute path, sha256) of the files that a run.json names."""
    model, atlas = data["model"], data["atlas"]
    found = [("om", model["path"], model["sha256"]), ("contract", model["contract"], model["contract_sha256"])]
    found += [("atlas", atlas["path"], atlas["sha256"])] + [("moving", name, digest) for name, digest in sorted(data["inputs"].items())]
    return [(role, str(name), str(digest)) for role, name, digest in found]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Python 3.7 raises for names that no file system can have; such a name comes from a damaged document.
        return False


def _check_contract(path: Path, known: _Known) -> Iterator[Link]:
    try:
        contract = GraphContract.load(path)
    except VxmError as exc:
        yield Link(BROKEN, path, str(exc))
        return
    for role, digest in sorted(contract.hashes.items()):
        name = ROLE_FILES.get(role)
        if name is None:
            yield known.link(path, role, digest)
        elif not (path.parent / name).is_file():
            yield Link(BROKEN, path.parent / name, f"is gone, {path.name} names it as {role}")
        else:
            yield _compare(path.parent / name, digest, f"recorded in {path.name} as {role}")


def _check_sources(side: Path, made_from: Dict[str, Any], known: _Known) -> Iterator[Link]:
    subject = side.parent / side.name[: -len(".json")]
    outside = []
    for role, digest in sorted((role, str(digest)) for role, digest in made_from.items()):
        sibling = side.parent / ROLE_FILES.get(role, "")
        if role in ROLE_FILES and sibling.is_file():
            yield _compare(sibling, digest, f"{subject.name} was made from it")
            continue
        link = known.link(subject, role, digest)
        if link.state == OUTSIDE:
            outside.append(f"{role} {digest[:12]}")
        else:
            yield link
    if outside:
        yield Link(OUTSIDE, subject, f"was also made from what is in none of the folders: {', '.join(outside)}")


def _compare(path: Path, expected: str, where: str) -> Link:
    got = sha256_of(path)
    if got == expected:
        return Link(OK, path, f"sha256 {got[:12]}, {where}")
    return Link(BROKEN, path, f"sha256 is {got[:12]}, expected {expected[:12]}, {where}; {_CHANGED}")
