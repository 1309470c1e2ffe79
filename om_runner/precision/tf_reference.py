# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow reference, in a separate process: runs frozen.pb on the CPU over raw .npy files.

In a separate process, npu_bridge, which patches TensorFlow when imported, cannot affect the reference, and its memory
never adds to the device's. It imports nothing of this project, so the Python with TensorFlow may differ from the
runner's.

Protocol, one JSON object per line. stdin: ``{"jobs": [{"moving", "fixed", "moved", "flow"}…]}``, files, with at most one
batch of jobs; or ``{"feeds": {tensor: file}, "fetches": {tensor: file}}`` for any tensors ``node:index`` of the graph,
including inner ones; stdout: first ``{"ready": true, "tensorflow": version}``, then per line ``{"seconds": s}``; any
failure is ``{"error": message, "kind": k}`` and exit 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

if __name__ == "__main__" and not __package__:
    # The file is started by its path: its folder must not be on the path of TensorFlow's imports.
    sys.path[:] = [
        entry for entry in sys.path if os.path.realpath(entry or ".") != os.path.dirname(os.path.realpath(__file__))
    ]

import numpy as np  # noqa: E402 - after the path is clean


class ReferenceFailure(Exception):
    """Reported to the parent as one line; `kind` selects the exception."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="om_runner.precision.tf_reference",
        description="Run frozen.pb with TensorFlow on the CPU; started by om_runner.",
    )
    parser.add_argument("--pb", required=True, metavar="FILE", help="the frozen graph (no default)")
    parser.add_argument("--contract", required=True, metavar="FILE", help="contract.json of the export (no default)")
    parser.add_argument(
        "--inner", action="store_true", help="do not optimise the graph, to get inner tensors (default: off)"
    )
    parser.add_argument(
        "--work", required=True, metavar="DIR", help="folder of the .npy files, in which job files are (no default)"
    )
    return parser


def read_contract(path: str) -> Dict[str, Any]:
    """meaning → {tensor name, shape}, and the pb's sha256; the parent has already validated the file."""
    with open(path, encoding="utf-8") as handle:
        data = json.load(handle)
    tensors = {
        t["meaning"]: ("{}:{}".format(t["node"], t["index"]), tuple(t["shape"]))
        for t in data["inputs"] + data["outputs"]
    }
    return {"tensors": tensors, "sha256": data["hashes"].get("frozen_pb")}


def open_session(pb: str, contract: Dict[str, Any], inner: bool) -> Tuple[str, Any]:
    """Check the pb's hash, import it, return (version, session)."""
    try:
        with open(pb, "rb") as handle:
            data = handle.read()
    except OSError as exc:
        raise ReferenceFailure(
            f"{pb}: cannot read the frozen graph ({exc.strerror}); it must be beside the .om, or use --compare none",
            "artifact",
        ) from exc
    found = hashlib.sha256(data).hexdigest()
    if found != contract["sha256"]:
        raise ReferenceFailure(
            "{}: sha256 {}, the contract says {}; export pb and .om together again".format(
                pb, found, contract["sha256"]
            ),
            "checksum",
        )
    try:
        import tensorflow

        tf = tensorflow.compat.v1
    except Exception as exc:  # an import can fail in many ways: missing, wrong CPU, wrong protobuf
        raise ReferenceFailure(
            f"TensorFlow cannot be imported by {sys.executable} ({type(exc).__name__}: {exc})", "tensorflow"
        ) from exc
    graph_def = tf.GraphDef()
    try:
        graph_def.ParseFromString(data)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
    except Exception as exc:  # protobuf and TensorFlow have no common base class for a bad graph
        raise ReferenceFailure(f"{pb}: TensorFlow refuses the graph ({exc})", "format") from exc
    config = tf.ConfigProto(device_count={"GPU": 0})
    # Without optimisation: a tensor that is fed or fetched must be the one that the nodes of that name compute.
    config.graph_options.rewrite_options.disable_meta_optimizer = inner
    return tensorflow.__version__, tf.Session(graph=graph, config=config)


def run_job(session: Any, contract: Dict[str, Any], work: str, request: Dict[str, Any]) -> None:
    """Run one batch; unused positions repeat the last job's images."""
    tensors, jobs = contract["tensors"], request["jobs"]
    feeds = {}
    for meaning in ("moving", "fixed"):
        name, shape = tensors[meaning]
        feeds[name] = np.empty(shape, dtype=np.float32)
        for position in range(shape[0]):
            file = os.path.join(work, jobs[min(position, len(jobs) - 1)][meaning])
            feeds[name][position, ..., 0] = np.load(file, allow_pickle=False)
    moved, flow = session.run([tensors["moved"][0], tensors["flow"][0]], feeds)
    for position, job in enumerate(jobs):
        np.save(os.path.join(work, job["moved"]), moved[position, ..., 0], allow_pickle=False)
        np.save(os.path.join(work, job["flow"]), flow[position], allow_pickle=False)


def run_tensors(session: Any, work: str, request: Dict[str, Any]) -> None:
    """Feed and fetch tensors by name; files are memory-mapped, so that large ones are in memory once."""
    feeds = {
        name: np.load(os.path.join(work, file), mmap_mode="r", allow_pickle=False)
        for name, file in request["feeds"].items()
    }
    names = sorted(request["fetches"])
    for name, value in zip(names, session.run(names, feeds)):
        np.save(os.path.join(work, request["fetches"][name]), value, allow_pickle=False)


def main(argv: Optional[List[str]] = None) -> int:
    args = build_parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # The protocol uses the real stdout; output of libraries goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: Dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        contract = read_contract(args.contract)
        version, session = open_session(args.pb, contract, args.inner)
        answer({"ready": True, "tensorflow": version})
        for line in sys.stdin:
            start = time.perf_counter()
            request = json.loads(line)
            if "fetches" in request:
                run_tensors(session, args.work, request)
            else:
                run_job(session, contract, args.work, request)
            answer({"seconds": time.perf_counter() - start})
    except ReferenceFailure as exc:
        answer({"error": str(exc), "kind": exc.kind})
        return 1
    except Exception as exc:
        answer({"error": f"{type(exc).__name__}: {exc}", "kind": "run"})
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
