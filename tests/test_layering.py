# SPDX-License-Identifier: Apache-2.0
"""The import fences, proved by walking the syntax trees: who may import whom, and where heavy packages may appear."""
from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple

import pytest

STAGES = ("train", "export", "om_runner")
PACKAGES = STAGES + ("vxm_convert",)


class Fence(NamedTuple):
    """`module` and what is below it may be imported only by files whose path starts with one of `allowed`."""

    module: str
    allowed: Tuple[str, ...]


FENCES = (
    Fence("tensorflow", ("vxm_convert/network/", "train/", "export/", "om_runner/tf_reference.py")),
    # The graph builders import TensorFlow when they are imported; only their names.py, which is all that weights/ reads, and
    # the lazy package do not.
    Fence("vxm_convert.network", ("vxm_convert/network/", "vxm_convert/weights/", "train/", "export/", "om_runner/tf_reference.py")),
    Fence("npu_bridge", ("train/npu/bridge.py",)),
    Fence("tf2onnx", ("export/",)),
    Fence("h5py", ("export/", "vxm_convert/weights/", "vxm_convert/inspection_weights.py")),
    Fence("acl", ("vxm_convert/toolchain.py",)),
    Fence("vxm_convert.sim", ("vxm_convert/sim/", "vxm_convert/toolchain.py", "vxm_convert/__main__.py")),
    Fence("openvino", ("vxm_convert/sim/", "export/")),
    Fence("SimpleITK", ("vxm_convert/geometry/affine_search.py",)),
    Fence("train", ("train/",)),
    Fence("export", ("export/",)),
    Fence("om_runner", ("om_runner/",)),
)


def imported_modules(source: str) -> Iterator[str]:
    """Every absolute module name a source imports, at any depth of nesting; ``from a import b`` gives a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"<relative import of {node.module}>"
                continue
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and _is_import_call(node.func):
            yield from _literal(node.args)


def _literal(arguments: List[ast.expr]) -> Iterator[str]:
    """The first argument, where it is written out."""
    try:
        yield str(ast.literal_eval(arguments[0]))
    except (IndexError, ValueError):
        return


def _is_import_call(func: ast.expr) -> bool:
    return (isinstance(func, ast.Attribute) and func.attr == "import_module") or \
        (isinstance(func, ast.Name) and func.id in ("__import__", "import_module", "LazyModule"))


def violations(path: str, source: str) -> List[str]:
    """Fences that a file breaks; `path` is relative to the project, with forward slashes."""
    found = []
    for module in sorted(set(imported_modules(source))):
        if module.startswith("<relative"):
            found.append(f"{path}: {module}; write the full name, so that fences can be checked")
        for fence in FENCES:
            if (module == fence.module or module.startswith(fence.module + ".")) and not path.startswith(fence.allowed):
                found.append(f"{path}: imports {module}, allowed only in {', '.join(fence.allowed)}")
    return found


def test_no_file_breaks_a_fence(project_root: Path) -> None:
    files = [p for package in PACKAGES for p in sorted((project_root / package).rglob("*.py")) if "shims" not in p.parts]
    assert len(files) > 20
    found = [v for p in files for v in violations(p.relative_to(project_root).as_posix(), p.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path, source", [
    ("vxm_convert/metrics.py", "import tensorflow as tf"),
    ("om_runner/placing.py", "import SimpleITK as sitk"),
    ("vxm_convert/metrics.py", "def f():\n    from tensorflow.compat import v1"),
    ("om_runner/batch.py", "import tensorflow.compat.v1"),
    ("om_runner/acl_runtime.py", "import acl"),
    ("om_runner/acl_runtime.py", "from vxm_convert.sim import acl"),
    ("om_runner/acl_runtime.py", "from vxm_convert import sim"),
    ("export/atc.py", "import importlib\nimportlib.import_module('vxm_convert.sim.atc')"),
    ("om_runner/session.py", "from vxm_convert.lazily import LazyModule\nsitk = LazyModule('SimpleITK')"),
    ("vxm_convert/spec.py", "from train.settings import TrainSettings"),
    ("train/loop.py", "import export.freeze"),
    ("export/freeze.py", "from om_runner import runtime"),
    ("vxm_convert/report.py", "from vxm_convert.network import build_unet"),
    ("train/loop.py", "from . import pairs"),
])
def test_a_breach_is_noticed(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize("path, source", [
    ("train/loop.py", "import tensorflow\nfrom vxm_convert.network import build_unet\nimport train.pairs"),
    ("om_runner/tf_reference.py", "import tensorflow"),
    ("vxm_convert/toolchain.py", "import importlib\nimportlib.import_module('acl')\nimport vxm_convert.sim.acl"),
    ("vxm_convert/report.py", "import exporter, trainer, aclocal"),
])
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert not violations(path, source)
