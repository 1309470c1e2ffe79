# SPDX-License-Identifier: Apache-2.0
"""Checks files offline against the hashes in their side-cars, contracts, run.json and SHA256SUMS. Only reads; repairs
nothing.

Damaged records are not trusted: SHA256SUMS is checked first by its own hash, then every file it lists; a side-car,
contract or run.json that is not the listed one is broken itself and breaks no other file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from vxm_convert.artifacts.files import read_json
from vxm_convert.artifacts.names import CONTRACT_NAME, INPUT, ROLE_FILES, RUN_NAME, SUMS_NAME, position_of, step_of
from vxm_convert.artifacts.sha256sums import read_manifest
from vxm_convert.errors import ArtifactError, VxmError
from vxm_convert.model.contract import GraphContract
from vxm_convert.scans.scan_file import scan_sha256

OK = "ok"
BROKEN = "BROKEN"
OUTSIDE = "outside"
UNPROVEN = "unproven"

#: role in a contract or side-car → the file of that role, in the same folder
_RECORDS = (CONTRACT_NAME, RUN_NAME)
_INPUT_ROLES = ("atlas", "moving")
_ADVICE = "pass a folder that train, export or om_runner wrote"
_CHANGED = "it was changed afterwards: make it again"


@dataclass(frozen=True)
class Link:
    """One checked statement.

    Parameters
    ----------
    state : str — ok; BROKEN; outside: made from something that is not in the checked folders; unproven: nothing
        recorded to check, or its source file is broken.
    subject : Path — the checked file.
    text : str — the result.
    step : str — step of the file in the chain.
    """

    state: str
    subject: Path
    text: str
    step: str = ""

    def placed(self) -> Link:
        """With its step from the file's name, if none is set."""
        return self if self.step else replace(self, step=step_of(self.subject))


class _Sums:
    """Every recorded hash of a file, compared with the file, which is read only once."""

    def __init__(self) -> None:
        self._digests: Dict[str, str] = {}
        self._claims: Dict[Tuple[str, str], Tuple[Path, str, List[str]]] = {}
        #: digest → a file that should have it, and whether it still does
        self._files: Dict[str, Tuple[Path, bool]] = {}

    def claim(self, path: Path, digest: str, where: str, step: str = "", source: bool = False) -> bool:
        """Add one record of an existing file; returns whether the file matches it.

        Parameters
        ----------
        where : str — source of the record.
        step : str — of the chain; empty: from the file's name.
        source : bool — whether other files may have been made from it.
        """
        # The absolute name, not the resolved one: links within a folder count as separate files.
        key = os.path.abspath(str(path))
        if key not in self._digests:
            self._digests[key] = scan_sha256(path)
        sound = self._digests[key] == digest
        said = self._claims.setdefault((key, digest), (path, step, []))[2]
        if where not in said:
            said.append(where)
        if source and (sound or digest not in self._files):
            self._files[digest] = (path, sound)
        return sound

    def links(self) -> List[Link]:
        """One link per file and recorded hash."""
        found = []
        for (key, digest), (path, step, said) in self._claims.items():
            got, where = self._digests[key], ", ".join(said)
            if got == digest:
                found.append(Link(OK, path, f"sha256 {got[:12]}, {where}", step))
            else:
                found.append(
                    Link(BROKEN, path, f"sha256 is {got[:12]}, expected {digest[:12]}, {where}; {_CHANGED}", step)
                )
        return found

    def origin(self, subject: Path, role: str, digest: str) -> Link:
        """Whether the sources of `subject` are here and intact."""
        source = f"was made from {role} {digest[:12]}"
        if digest not in self._files:
            return Link(OUTSIDE, subject, f"{source}, which is in none of the folders")
        path, sound = self._files[digest]
        if not sound:
            return Link(UNPROVEN, subject, f"{source}, but {path} is no longer that file")
        return Link(OK, subject, f"{source}, which is here: {path.name}")


def verify_folders(folders: Sequence[Path]) -> List[Link]:
    """Check every manifest, side-car, contract and run.json under the folders; for a run.json also the files it names
    elsewhere.

    Returns
    ------- list of Link — in the order of the chain, from checkpoint to report, so the first broken one is where the
    chain breaks.

    Raises
    ------
    ArtifactError
        If a folder does not exist, or contains neither side-car nor contract.
    """
    sums = _Sums()
    manifests = _below(folders, SUMS_NAME)
    links, distrusted = _check_manifests(manifests, sums)
    documents = [path for path in _below(folders, "*.json") if os.path.abspath(str(path)) not in distrusted]
    loaded = {path: _load(path) for path in documents}
    sidecars = {path: data for path, data in sorted(loaded.items()) if path.name not in _RECORDS and _is_sidecar(data)}
    contracts = [path for path in documents if path.name == CONTRACT_NAME]
    if not (sidecars or contracts or manifests):
        names = ", ".join(str(f) for f in folders)
        raise ArtifactError(
            f"{names}: no side-car (<file>.json), no {CONTRACT_NAME} and no {SUMS_NAME} there; {_ADVICE}"
        )
    for path, data in sidecars.items():
        links += _check_file(path, data, sums)
    for path, data in loaded.items():
        if path.name == RUN_NAME:
            links += _check_run(path, data, sums)
    for path in contracts:
        links += _check_contract(path, sums)
    for path, data in sidecars.items():
        links += _check_sources(path, data["made_from"], sums)
    links += [
        _unproven(path)
        for path, data in sorted(loaded.items())
        if path not in sidecars and _describes_a_file(path, data)
    ]
    placed = [link.placed() for link in sums.links() + links]
    return sorted(placed, key=lambda link: position_of(link.step))


def first_broken(links: Sequence[Link]) -> Optional[Link]:
    """The first broken link; None for an intact chain."""
    return next((link for link in links if link.state == BROKEN), None)


def folders_without_list(folders: Sequence[Path]) -> List[Path]:
    """Folders of an export or a run without SHA256SUMS, in which only files with a side-car are checked."""
    ends = [path.parent for name in _RECORDS for path in _below(folders, name)]
    return sorted({folder for folder in ends if not (folder / SUMS_NAME).is_file()})


def _check_manifests(manifests: Sequence[Path], sums: _Sums) -> Tuple[List[Link], Set[str]]:
    """Links of the lists and of missing files; and the files, by absolute name, whose content is not trusted."""
    links, distrusted = [], set()
    for path in manifests:
        try:
            entries = read_manifest(path)
        except VxmError as exc:
            links.append(Link(BROKEN, path, str(exc).partition(": ")[2]))
            continue
        links.append(Link(OK, path, f"lists {len(entries)} files, and its own sum is right"))
        for name, digest in sorted(entries.items()):
            listed = path.parent / name
            if not _is_file(listed):
                links.append(Link(BROKEN, listed, f"is missing, but {path} lists it"))
            elif not sums.claim(listed, digest, f"recorded in {SUMS_NAME}", source=True):
                distrusted.add(os.path.abspath(str(listed)))
    return links, distrusted


def _below(folders: Sequence[Path], pattern: str) -> List[Path]:
    """Files of that name below the folders, each once even if one folder is inside another."""
    found: Dict[str, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: no such folder; {_ADVICE}")
        for path in sorted(p for p in folder.rglob(pattern) if p.is_file()):
            found.setdefault(os.path.abspath(str(path)), path)
    return list(found.values())


def _load(path: Path) -> Any:
    try:
        return read_json(path)
    except VxmError as exc:
        # A damaged side-car must not be ignored: it becomes a broken link of its file.
        return {"file": path.name[: -len(".json")], "sha256": "", "made_from": {}, "damaged": str(exc)}


def _is_sidecar(data: object) -> bool:
    return (
        isinstance(data, dict) and {"file", "sha256", "made_from"} <= set(data) and isinstance(data["made_from"], dict)
    )


def _describes_a_file(path: Path, data: object) -> bool:
    return isinstance(data, dict) and "file" in data and (path.parent / path.name[: -len(".json")]).is_file()


def _unproven(side: Path) -> Link:
    return Link(
        UNPROVEN, side.parent / side.name[: -len(".json")], f"its side-car {side.name} records no sha256 or no sources"
    )


def _check_file(side: Path, data: Dict[str, Any], sums: _Sums) -> Iterator[Link]:
    subject = side.parent / side.name[: -len(".json")]
    if "damaged" in data:
        yield Link(BROKEN, subject, f"its side-car cannot be read: {data['damaged']}")
    # The name is compared, never followed: a side-car cannot point out of its folder.
    elif data["file"] != subject.name:
        yield Link(BROKEN, subject, f"its side-car {side.name} describes {data['file']!r}")
    elif not subject.is_file():
        yield Link(BROKEN, subject, f"is missing, but its side-car {side.name} exists")
    else:
        sums.claim(subject, str(data["sha256"]), f"recorded in {side.name}", source=True)


def _check_run(path: Path, data: Any, sums: _Sums) -> Iterator[Link]:
    """The files that a run read, at any path. Only regular files are read, and only their hash is shown."""
    try:
        sources = _run_sources(data)
    except (KeyError, TypeError, AttributeError) as exc:
        reason = data["damaged"] if isinstance(data, dict) and "damaged" in data else f"{type(exc).__name__}: {exc}"
        yield Link(
            BROKEN, path, f"does not have a run's entries for model, atlas and inputs ({reason}); register again"
        )
        return
    for role, name, digest in sources:
        source = Path(name)
        if not _is_file(source):
            yield Link(OUTSIDE, path, f"the run read {role} {digest[:12]} from {source}, which no longer exists")
            continue
        sums.claim(
            source, digest, f"recorded in {path.name} as {role}", INPUT if role in _INPUT_ROLES else "", source=True
        )


def _run_sources(data: Any) -> List[Tuple[str, str, str]]:
    """(role, absolute path, sha256) of the files that a run.json names."""
    model, atlas = data["model"], data["atlas"]
    found = [("om", model["path"], model["sha256"]), ("contract", model["contract"], model["contract_sha256"])]
    # Fixed images of pairs are among the inputs.
    found += [] if atlas is None else [("atlas", atlas["path"], atlas["sha256"])]
    found += [("moving", name, digest) for name, digest in sorted(data["inputs"].items())]
    return [(role, str(name), str(digest)) for role, name, digest in found]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Python 3.7 raises for impossible file names; such a name comes from a damaged document.
        return False


def _check_contract(path: Path, sums: _Sums) -> Iterator[Link]:
    try:
        contract = GraphContract.load(path)
    except VxmError as exc:
        yield Link(BROKEN, path, str(exc))
        return
    for role, digest in sorted(contract.hashes.items()):
        name = ROLE_FILES.get(role)
        if name is None:
            yield sums.origin(path, role, digest)
        elif not (path.parent / name).is_file():
            yield Link(BROKEN, path.parent / name, f"is missing, but {path.name} names it as {role}")
        else:
            sums.claim(path.parent / name, digest, f"recorded in {path.name} as {role}")


def _check_sources(side: Path, made_from: Dict[str, Any], sums: _Sums) -> Iterator[Link]:
    subject = side.parent / side.name[: -len(".json")]
    outside = []
    for role, digest in sorted((role, str(digest)) for role, digest in made_from.items()):
        sibling = side.parent / ROLE_FILES.get(role, "")
        if role in ROLE_FILES and sibling.is_file():
            sums.claim(sibling, digest, f"{subject.name} was made from it")
            continue
        link = sums.origin(subject, role, digest)
        if link.state == OUTSIDE:
            outside.append(f"{role} {digest[:12]}")
        else:
            yield link
    if outside:
        yield Link(OUTSIDE, subject, f"was also made from files in none of the folders: {', '.join(outside)}")
