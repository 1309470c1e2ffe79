# SPDX-License-Identifier: Apache-2.0
"""The rules of the layout and their check on syntax trees; writes the tables of docs/architecture.md from them.

`tests/test_layering.py` holds the project to these rules. Run ``python -m scripts.layout`` after changing one.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Sequence, Set, Tuple

#: path relative to the project, with forward slashes → source
Modules = Dict[str, str]
Graph = Dict[str, Set[str]]

PACKAGES = ("vxm_convert", "train", "export", "om_runner")
#: modules of a folder, its ``__init__`` not counted
MAX_MODULES = 15

#: Folders of each package, lowest floor first. A folder imports from its own floor and from lower ones only.
FLOORS: Dict[str, Tuple[Tuple[str, ...], ...]] = {
    "vxm_convert": (
        ("artifacts", "ascend", "webpage", "metrics", "profiles"),
        ("model", "formats", "geometry"),
        ("scans", "weights"),
        ("intensities", "affine"),
        ("transforms", "synthetic", "network"),
        ("sim",),
        ("toolchain",),
        ("inspection", "device_check"),
    ),
    "train": (("settings",), ("data", "devices"), ("graph", "prepare"), ("run", "evaluate")),
    "export": (("passes",), ("preflight",), ("tune",)),
    "om_runner": (
        ("device", "inputs", "sharing"),
        ("precision",),
        ("results", "audit", "layers"),
        ("bids", "options", "device_check"),
        ("qc",),
        ("registration",),
        ("api",),
        ("commands",),
        ("cluster",),
    ),
}
#: The same for the folders inside a folder.
INNER_FLOORS: Dict[str, Tuple[Tuple[str, ...], ...]] = {
    "vxm_convert/scans": (("textual",),),
    "export/preflight": (("view",), ("rules", "estimate")),
    "om_runner/device_check": (("probes",),),
    "om_runner/precision": (("page",),),
    "vxm_convert/sim": (("compiler", "engine", "frontends"), ("acl", "atc")),
    "vxm_convert/sim/acl": (("base",), ("dumps", "streams"), ("memory",), ("models",)),
    "vxm_convert/sim/engine": (("rewrites", "ending"), ("lowering",)),
}


class Fence(NamedTuple):
    """`module` and what is below it may be imported only by files whose path starts with one of `allowed`."""

    module: str
    allowed: Tuple[str, ...]


_TENSORFLOW = ("vxm_convert/network/", "train/", "export/", "om_runner/precision/tf_reference.py")
_RAW_FILES = ("vxm_convert/scans/", "vxm_convert/transforms/")
FENCES = (
    Fence("tensorflow", _TENSORFLOW),
    Fence("vxm_convert.network", _TENSORFLOW),
    Fence("npu_bridge", ("train/devices/npu.py",)),
    Fence("tf2onnx", ("export/",)),
    Fence("h5py", ("vxm_convert/weights/", "vxm_convert/inspection/weights.py")),
    Fence("acl", ("vxm_convert/toolchain/find.py",)),
    Fence("vxm_convert.sim", ("vxm_convert/sim/", "vxm_convert/toolchain/", "vxm_convert/__main__.py")),
    Fence("openvino", ("vxm_convert/sim/engine/", "export/onnx_model.py")),
    Fence("onnxruntime", ("vxm_convert/sim/engine/", "export/onnx_model.py")),
    Fence("SimpleITK", ("vxm_convert/affine/simpleitk.py", "vxm_convert/transforms/")),
    Fence("numba", ("vxm_convert/geometry/", "vxm_convert/sim/engine/ending/")),
    Fence("jinja2", ("vxm_convert/webpage/templates.py",)),
    Fence("matplotlib", ("vxm_convert/webpage/charts.py",)),
    # Scans are opened by ScanFile alone: these read headers and bytes, the writer and the arithmetic of axes beside.
    Fence(
        "nibabel", ("vxm_convert/scans/header.py", "vxm_convert/scans/nifti.py", "vxm_convert/geometry/orientations.py")
    ),
    Fence("vxm_convert.scans.raw_header.judge", _RAW_FILES),
    Fence("vxm_convert.scans.raw_header.read_voxels", _RAW_FILES),
    Fence("vxm_convert.scans.npz.NpzReader", _RAW_FILES),
    # Arrays that a run wrote for itself.
    Fence(
        "numpy.load",
        (
            "om_runner/precision/store.py",
            "om_runner/precision/foreign_files.py",
            "om_runner/precision/tf_reference.py",
            "om_runner/layers/golden.py",
            "export/onnx_model.py",
            "vxm_convert/transforms/itk_composite.py",
        ),
    ),
    Fence("train", ("train/",)),
    Fence("export", ("export/",)),
    Fence("om_runner", ("om_runner/",)),
)


def read_modules(root: Path) -> Modules:
    """The Python files of the packages below `root`; the shims are not ours to lay out, they bear foreign names."""
    files = [p for package in PACKAGES for p in sorted((root / package).rglob("*.py")) if "shims" not in p.parts]
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in files}


@lru_cache(maxsize=None)
def imported(source: str) -> FrozenSet[str]:
    """Every absolute module name that a source imports, at any depth; ``from a import b`` gives ``a`` and ``a.b``.

    A relative import gives a name that starts with a dot. What is used of NumPy counts as imported from it.
    """
    return frozenset(_imported(source))


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            home = "." * node.level + (node.module or "")
            yield home
            for alias in node.names:
                yield f"{home}.{alias.name}"
        elif isinstance(node, ast.Call) and _imports_by_name(node.func):
            yield from _literal(node.args)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in ("np", "numpy"):
            yield f"numpy.{node.attr}"


def _literal(arguments: List[ast.expr]) -> Iterator[str]:
    """The first argument, where it is written out."""
    try:
        yield str(ast.literal_eval(arguments[0]))
    except (IndexError, ValueError):
        return


def _imports_by_name(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__", "LazyModule")


def dotted(path: str) -> str:
    """``a/b.py`` → ``a.b``; an ``__init__`` is its folder."""
    name = path[: -len(".py")].replace("/", ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def room_of(path: str) -> str:
    """The folder of a module; a module that lies directly in a package is a room of its own."""
    return path if path.count("/") == 1 else path.rpartition("/")[0]


def import_graph(modules: Modules) -> Graph:
    """path → paths it imports, inside the packages."""
    paths = {dotted(path): path for path in modules}
    graph = {}
    for path, source in modules.items():
        # Where a.b is a module, `from a import b` needs that module; a itself is only its docstring.
        targets = {paths[name] for name in imported(source) if name in paths}
        graph[path] = {target for target in targets if target != path and not target.endswith("__init__.py")}
    return graph


def folder_graph(modules: Modules) -> Graph:
    """room → rooms that its modules import."""
    graph: Graph = {}
    for path, targets in import_graph(modules).items():
        rooms = {room_of(target) for target in targets} - {room_of(path)}
        graph.setdefault(room_of(path), set()).update(rooms)
    return graph


def circles(graph: Graph) -> List[str]:
    """One line per set of nodes that reach each other."""
    reach = {node: _reachable(graph, node) for node in graph}
    sets = {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph}
    return sorted(" ↔ ".join(sorted(nodes)) for nodes in sets if nodes)


def _reachable(graph: Graph, start: str) -> Set[str]:
    seen: Set[str] = set()
    todo = list(graph.get(start, ()))
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(graph.get(node, ()))
    return seen


def climbs(modules: Modules) -> List[str]:
    """Imports from a higher floor of the same package or folder."""
    found = []
    for path, targets in import_graph(modules).items():
        for target in targets:
            for home, floors in _buildings(path):
                here, there = _floor(path, home, floors), _floor(target, home, floors)
                if here is not None and there is not None and there > here:
                    found.append(f"{path} imports {target}, which is {there - here} floors above")
    return sorted(found)


def _buildings(path: str) -> Iterator[Tuple[str, Sequence[Sequence[str]]]]:
    package = path.split("/")[0]
    yield package, FLOORS[package]
    for home, floors in INNER_FLOORS.items():
        if path.startswith(home + "/"):
            yield home, floors


def _floor(path: str, home: str, floors: Sequence[Sequence[str]]) -> int | None:
    if not path.startswith(home + "/"):
        return None
    room = path[len(home) + 1 :].split("/")[0]
    return next((number for number, rooms in enumerate(floors) if room in rooms), None)


def trespasses(modules: Modules) -> List[str]:
    """Fences that are broken, and relative imports, which fences cannot see."""
    found = []
    for path, source in modules.items():
        for name in sorted(imported(source)):
            if name.startswith("."):
                found.append(f"{path}: relative import of {name}; write the full name, so that fences can be checked")
            found += [
                f"{path}: imports {name}, allowed only in {', '.join(fence.allowed)}"
                for fence in FENCES
                if (name + ".").startswith(fence.module + ".") and not path.startswith(fence.allowed)
            ]
    return found


def crowded(modules: Modules) -> Dict[str, int]:
    """folder → number of modules, where there are more than `MAX_MODULES`."""
    count: Dict[str, int] = {}
    for path in modules:
        if not path.endswith("__init__.py"):
            folder = path.rpartition("/")[0]
            count[folder] = count.get(folder, 0) + 1
    return {folder: number for folder, number in count.items() if number > MAX_MODULES}


def sentence_of(source: str) -> str:
    """The docstring of a package on one line."""
    return " ".join((ast.get_docstring(ast.parse(source)) or "").split())


def rooms_without_a_sentence(modules: Modules) -> List[str]:
    """Folders whose ``__init__`` is missing, holds more than a docstring, or has one that is no single sentence.

    The ``__init__`` of a package may hold its version and its public names, which `vxm_convert.lazy.public_names` imports
    when they are used.
    """
    found = []
    folders = {path.rpartition("/")[0] for path in modules}
    for folder in sorted(folders):
        source = modules.get(f"{folder}/__init__.py")
        if source is None:
            found.append(f"{folder}: no __init__.py")
            continue
        body = [node for node in ast.parse(source).body[1:] if folder not in PACKAGES or not _is_public(node)]
        if body:
            found.append(f"{folder}: __init__.py holds more than its docstring")
        if not re.fullmatch(r"[^.]+(\.\w[^.]*)*\.", re.sub(r"`[^`]*`", "x", sentence_of(source))):
            found.append(f"{folder}: its docstring is not one sentence")
    return found


def _is_public(node: ast.stmt) -> bool:
    """Version, list of names, the call that imports them when they are used, and the same imports for type checkers."""
    if isinstance(node, ast.ImportFrom):
        return node.module in ("__future__", "typing", "vxm_convert.lazy")
    if isinstance(node, ast.If):
        return getattr(node.test, "id", "") == "TYPE_CHECKING" and all(isinstance(n, ast.ImportFrom) for n in node.body)
    if not isinstance(node, ast.Assign):
        return False
    names = {getattr(part, "id", "") for target in node.targets for part in ast.walk(target)} - {""}
    if names == {"__getattr__", "__dir__"}:
        return isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "public_names"
    return names in ({"__version__"}, {"__all__"})


def room_table(modules: Modules) -> str:
    """Markdown: every folder with its sentence and its number of modules."""
    rows = ["| folder | modules | what belongs in it |", "|---|---|---|"]
    for path in sorted(path for path in modules if path.endswith("__init__.py")):
        folder = path.rpartition("/")[0]
        count = sum(other.rpartition("/")[0] == folder for other in modules) - 1
        rows.append(f"| `{folder}/` | {count} | {sentence_of(modules[path])} |")
    return "\n".join(rows)


def fence_table() -> str:
    """Markdown: who may import what."""
    rows = ["| package | may be imported by |", "|---|---|"]
    rows += [f"| {fence.module} | {', '.join(f'`{place}`' for place in fence.allowed)} |" for fence in FENCES]
    return "\n".join(rows)


def floor_table() -> str:
    """Markdown: the floors of each package, lowest first."""
    rows = ["| package | floors, lowest first; a folder imports from its own floor and lower ones |", "|---|---|"]
    for home, floors in sorted({**FLOORS, **INNER_FLOORS}.items()):
        rows.append(f"| `{home}/` | {' ← '.join(', '.join(rooms) for rooms in floors)} |")
    return "\n".join(rows)


def main() -> int:
    """Write the tables into docs/architecture.md."""
    root = Path(__file__).resolve().parents[1]
    document = root / "docs" / "architecture.md"
    text = document.read_text(encoding="utf-8")
    tables = {"rooms": room_table(read_modules(root)), "fences": fence_table(), "floors": floor_table()}
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by scripts/layout.py -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = before + begin + "\n" + table + "\n\n" + end + rest.split(end)[1]
    document.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
