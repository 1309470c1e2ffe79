# SPDX-License-Identifier: Apache-2.0
"""Puts the weights of ``models/`` into the wheel as ``vxm_convert/models/``; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODELS = Path(__file__).resolve().parent / "models"


class BuildWithModels(build_py):
    """Copies the checkpoints beside the modules; pictures stay in the source."""

    def run(self) -> None:
        super().run()
        for path in sorted(MODELS.glob("*/*")):
            if path.is_file() and path.suffix != ".png":
                target = Path(self.build_lib) / "vxm_convert" / "models" / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(path), str(target))


setup(cmdclass={"build_py": BuildWithModels})
