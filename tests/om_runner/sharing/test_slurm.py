# SPDX-License-Identifier: Apache-2.0
"""The sbatch file of the examples, run by bash with another ``python`` in front: its command line is one of ours."""

from __future__ import annotations

import os
import subprocess

from om_runner.__main__ import build_parser, settings_from
from om_runner.options.run import Shard


def test_a_task_of_the_array_registers_its_shard(project_root, tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\nexit 3\n', encoding="utf-8")
    fake.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "20",
    }
    script = project_root / "examples" / "slurm_array.sbatch"
    done = subprocess.run(
        ["bash", str(script), "in put", "atlas.npz", "out"], env=environment, stdout=subprocess.PIPE, text=True
    )
    words = done.stdout.splitlines()
    assert done.returncode == 3 and words[:2] == ["-m", "om_runner"]
    settings = settings_from(build_parser().parse_args(words[2:]), words)
    assert settings.batch.shard == Shard(3, 20) and str(settings.input) == "in put" and settings.compare == 0
