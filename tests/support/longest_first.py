# SPDX-License-Identifier: Apache-2.0
"""The order in which the workers of a test run take its files: those that take longest come first.

By itself pytest-xdist starts with the files of most tests. Files of few long tests then come last, and the other
workers wait for them.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

#: files of more than five seconds of a CPU, longest first; those that mostly wait for other processes and time-outs come one
#: after the other among them, or processors are idle; after all of them the order is that of pytest-xdist
LONGEST = (
    "tests/train/run/test_resume.py",
    "tests/train/run/test_training.py",
    "tests/om_runner/cluster/test_cluster.py",
    "tests/train/devices/test_workers.py",
    "tests/vxm_convert/affine/test_affine_search.py",
    "tests/export/test_cli.py",
    "tests/integration/test_provenance.py",
    "tests/export/tune/test_command.py",
    "tests/om_runner/layers/test_layers.py",
    "tests/om_runner/sharing/test_runs_at_once.py",
    "tests/vxm_convert/geometry/test_loops.py",
    "tests/integration/test_layers.py",
    "tests/vxm_convert/sim/frontends/test_sweep.py",
    "tests/train/devices/test_npu.py",
    "tests/integration/test_header_kinds.py",
    "tests/om_runner/results/test_resume.py",
    "tests/integration/test_numerics.py",
    "tests/integration/test_wrong_input.py",
    "tests/om_runner/inputs/test_pairs.py",
    "tests/integration/test_chain.py",
    "tests/train/prepare/test_freesurfer.py",
    "tests/train/prepare/test_prepare.py",
    "tests/scripts/test_training_benchmark.py",
    "tests/train/run/test_diffeomorphic.py",
    "tests/vxm_convert/sim/acl/test_programs.py",
    "tests/vxm_convert/sim/frontends/test_onnx_sweep.py",
    "tests/vxm_convert/sim/test_env.py",
    "tests/integration/test_audit.py",
)


class LongestFirst(LoadFileScheduling):
    """Whole files, as ``--dist loadfile`` gives them out, in another order."""

    def _assign_work_unit(self, node: Any) -> None:
        longest = next((name for name in LONGEST if name in self.workqueue), None)
        if longest is not None:
            self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)
