# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: ``model-N`` files of TensorFlow's Saver, ``spec.json`` beside them, a side-car for each.

Owns their names and which ones are kept. Variables are saved under the network's own names (``conv3d/kernel`` …
``flow/bias``) with Adam's slots beside them, so any reader finds them by name; no ``.meta`` is written or needed.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from vxm_convert.artifacts import check_output_folder, sidecar_path, write_json, write_sidecar
from vxm_convert.errors import ArtifactError
from vxm_convert.network.tf1 import tf
from vxm_convert.spec import ModelSpec

PREFIX = "model"
SPEC_NAME = "spec.json"
_SUFFIXES = (".index", ".data-00000-of-00001")


class CheckpointFolder:
    """Writes the checkpoints of one run; make it inside the training graph, after all variables exist.

    Parameters
    ----------
    folder : Path — made if missing; an earlier run's files there are refused, not mixed.
    spec : ModelSpec — the network that is trained.
    keep : int — newest checkpoints to keep.
    made_from : dict — role → sha256, for the side-cars.
    """

    def __init__(self, folder: Path, spec: ModelSpec, keep: int, made_from: Dict[str, str]) -> None:
        self.folder = check_output_folder(folder)
        if any(self.folder.glob(PREFIX + "-*.index")):
            raise ArtifactError(f"{self.folder}: already holds checkpoints of another run; choose another --out or remove them")
        self._made_from = made_from
        self._saver = tf.train.Saver(max_to_keep=keep)
        write_json(self.folder / SPEC_NAME, spec.to_dict())

    def save(self, session: Any, step: int) -> Path:
        """Save all variables as ``model-<step>``; the Saver writes under other names first and renames.

        Returns
        -------
        Path — the prefix, as `python -m export --checkpoint` takes it.
        """
        try:
            prefix = self._saver.save(session, str(self.folder / PREFIX), global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as exc:
            raise ArtifactError(f"{self.folder}: cannot save step {step} ({exc}); is the disk full?") from exc
        for suffix in _SUFFIXES:
            write_sidecar(Path(prefix + suffix), self._made_from, {"kind": "none"}, step=step)
        self._remove_orphans()
        return Path(prefix)

    def _remove_orphans(self) -> None:
        """Side-cars of checkpoints that the Saver has dropped."""
        for suffix in _SUFFIXES:
            for side in self.folder.glob(sidecar_path(Path(PREFIX + "-*" + suffix)).name):
                if not side.with_suffix("").exists():
                    side.unlink()
