# SPDX-License-Identifier: Apache-2.0
"""Proves offline that files are those their side-cars and contracts recorded. Reads only; repairs nothing."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Set

from vxm_convert.artifacts import sha256_of
from vxm_convert.contract import CONTRACT_NAME, GraphContract
from vxm_convert.errors import ArtifactError, VxmError
from vxm_convert.inspection import read_json

OK = "ok"
BROKEN = "BROKEN"
OUTSIDE = "outside"
UNPROVEN = "unproven"

#: role in a contract or side-car → the file of that role, in the same folder
ROLE_FILES = {"frozen_pb": "frozen.pb", "onnx": "vxm.onnx", "om": "vxm.om"}
_ADVICE = "pass a folder that train, export or om_runner wrote"


@dataclass(frozen=True)
class Link:
    """One checked statement.

    Parameters
    ----------
    state : str — ok; BROKEN; outside: made from something that is not in the checked folders; unproven: nothing recorded to check.
    subject : Path — the file it is about.
    text : str — what was found.
    """

    state: str
    subject: Path
    text: str


def verify_folders(folders: Sequence[Path]) -> List[Link]:
    """Check every side-car and contract under the folders.

    Raises
    ------
    ArtifactError
        A folder does not exist, or nothing in it carries a side-car or a contract.
    """
    documents = [path for folder in folders for path in _json_files(Path(folder))]
    loaded = {path: _load(path) for path in documents}
    sidecars = {path: data for path, data in loaded.items() if _is_sidecar(data)}
    contracts = [path for path in documents if path.name == CONTRACT_NAME]
    if not sidecars and not contracts:
        names = ", ".join(str(f) for f in folders)
        raise ArtifactError(f"{names}: no side-car (<file>.json) and no {CONTRACT_NAME} there; {_ADVICE}")
    links = [_check_file(path, data) for path, data in sorted(sidecars.items())]
    known = {str(data["sha256"]) for data in sidecars.values()}
    for path in contracts:
        links += _check_contract(path, known)
    for path, data in sorted(sidecars.items()):
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


def _check_contract(path: Path, known: Set[str]) -> Iterator[Link]:
    try:
        contract = GraphContract.load(path)
    except VxmError as exc:
        yield Link(BROKEN, path, str(exc))
        return
    for role, digest in sorted(contract.hashes.items()):
        name = ROLE_FILES.get(role)
        if name is None:
            yield _source_link(path, role, digest, known)
        elif not (path.parent / name).is_file():
            yield Link(BROKEN, path.parent / name, f"is gone, {path.name} names it as {role}")
        else:
            yield _compare(path.parent / name, digest, f"recorded in {path.name} as {role}")


def _check_sources(side: Path, made_from: Dict[str, Any], known: Set[str]) -> Iterator[Link]:
    subject = side.parent / side.name[: -len(".json")]
    outside = []
    for role, digest in sorted(made_from.items()):
        sibling = side.parent / ROLE_FILES.get(role, "")
        if role in ROLE_FILES and sibling.is_file():
            yield _compare(sibling, str(digest), f"{subject.name} was made from it")
        elif str(digest) in known:
            yield _source_link(subject, role, str(digest), known)
        else:
            outside.append(f"{role} {str(digest)[:12]}")
    if outside:
        yield Link(OUTSIDE, subject, f"was also made from what is in none of the folders: {', '.join(outside)}")


def _source_link(subject: Path, role: str, digest: str, known: Set[str]) -> Link:
    if digest in known:
        return Link(OK, subject, f"was made from {role} {digest[:12]}, which is here")
    return Link(OUTSIDE, subject, f"was made from {role} {digest[:12]}, which is in none of the folders")


def _compare(path: Path, expected: str, where: str) -> Link:
    got = sha256_of(path)
    if got == expected:
        return Link(OK, path, f"sha256 {got[:12]}, {where}")
    return Link(BROKEN, path, f"sha256 is {got[:12]}, expected {expected[:12]}, {where}; it was changed afterwards: make it again")
