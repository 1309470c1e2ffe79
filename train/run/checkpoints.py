# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: ``model-N`` files of TensorFlow's Saver, ``spec.json`` beside them, a side-car for each.

Owns their names and decides which are kept. Variables are saved under the network's own names (``conv3d/kernel`` …
``flow/bias``) with Adam's slots beside them, so any reader finds them by name; no ``.meta`` is written or needed.
``model-N.state.json`` holds what a run needs beyond its variables and is written last: runs do not resume from a
checkpoint without it, or whose bytes differ from the recorded ones.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from train.run.resume import MAX_STATE_BYTES, STATE_SUFFIX, shaped
from vxm_convert.artifacts.files import check_output_folder, sha256_of, sidecar_path, write_json, write_sidecar
from vxm_convert.artifacts.names import BEST_NAME, SPEC_NAME
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.artifacts.temporaries import clear_temporaries, remove
from vxm_convert.errors import ArtifactError, TrainingError
from vxm_convert.model.intensity import CONVENTION
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.spec_file import write_spec
from vxm_convert.network.tf1 import tf

LOG = logging.getLogger(__name__)

PREFIX = "model"
#: file in which TensorFlow's Saver records the newest checkpoint
_SAVER_NOTE = "checkpoint"
STATE_SCHEMA = 1
_SUFFIXES = (".index", ".data-00000-of-00001")
_NAME = re.compile(rf"{PREFIX}-(\d+)(\..+)$")
#: what the Saver renames: its parts of a checkpoint, and the list of checkpoints
_SAVER_TEMPORARIES = ("*.tempstate*", "model-*_temp_*", "checkpoint.tmp*")


class CheckpointFolder:
    """Writes and finds the checkpoints of one run; make it inside the training graph, after all variables exist.

    Parameters
    ----------
    folder : Path — made if missing.
    spec : ModelSpec — the trained network.
    keep : int — number of newest checkpoints to keep, in addition to the best one in validation.
    made_from : dict — role → sha256, for the side-cars.
    rule : str — intensity rule for ``spec.json``, see `vxm_convert.model.intensity`.
    writes : bool — False: another process of the run saves; this one only restores checkpoints.
    resume : bool — False: a folder with checkpoints is refused, so that two runs never mix.
    """

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        keep: int,
        made_from: Dict[str, str],
        resume: bool = False,
        writes: bool = True,
        rule: str = CONVENTION,
    ) -> None:
        self.folder = check_output_folder(folder)
        self._writes = writes
        if writes and not resume and any(self.folder.glob(PREFIX + "-*.index")):
            raise ArtifactError(
                f"{self.folder}: already contains checkpoints of another run; pass --resume to continue it, or "
                "another --out"
            )
        if writes:
            self._clear_leftovers()
        self._keep = keep
        self._made_from = made_from
        # Keeps everything: TensorFlow's own count would drop the best one.
        self._saver = tf.train.Saver(max_to_keep=0)
        if writes and not resume:
            write_spec(self.folder, spec, rule)

    def _clear_leftovers(self) -> None:
        """Remove temporary files of a training that was killed while it saved: ours, and those of TensorFlow's Saver."""
        clear_temporaries(self.folder)
        for pattern in _SAVER_TEMPORARIES:
            for path in self.folder.glob(pattern):
                remove(path)

    def made_from(self, more: Dict[str, str]) -> None:
        """Other sources of the checkpoints: role → sha256."""
        self._made_from = {**self._made_from, **more}

    def prefix(self, step: int) -> Path:
        """The name that `python -m export --checkpoint` takes."""
        return self.folder / f"{PREFIX}-{step}"

    def save(self, session: tf.Session, step: int, state: Dict[str, Any]) -> Path:
        """Save all variables as ``model-<step>`` (the Saver writes under other names first and renames), then the
        state.

        Parameters
        ----------
        state : dict — JSON values; ``state["best"]["step"]`` names the checkpoint that is kept regardless of its age.

        Returns
        -------
        Path — the prefix, as `python -m export --checkpoint` takes it.
        """
        if not self._writes:
            return self.prefix(step)
        try:
            prefix = self._saver.save(session, str(self.folder / PREFIX), global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as exc:
            raise ArtifactError(f"{self.folder}: cannot save step {step}: {write_problem(exc)}") from exc
        for suffix in _SUFFIXES:
            write_sidecar(Path(prefix + suffix), self._made_from, {"kind": "none"}, step=step)
        files = {suffix: sha256_of(Path(prefix + suffix)) for suffix in _SUFFIXES}
        write_json(Path(prefix + STATE_SUFFIX), {**state, "schema": STATE_SCHEMA, "step": step, "files": files})
        best = state.get("best")
        if best:
            write_json(self.folder / BEST_NAME, {**best, "checkpoint": self.prefix(best["step"]).name})
        self._remove_old(best["step"] if best else None)
        return Path(prefix)

    def newest(self) -> Dict[str, Any]:
        """State of the newest complete checkpoint.

        Raises
        ------
        TrainingError
            If there is none.
        """
        for step in reversed(self._steps()):
            state = self._state(step)
            if state is not None:
                return state
            LOG.warning("%s: incomplete or damaged, ignored", self.prefix(step))
        raise TrainingError(
            f"{self.folder}: no complete checkpoint to resume from; start without --resume, in an empty folder"
        )

    def restore(self, session: tf.Session, step: int) -> None:
        """All variables of a checkpoint, optimizer slots and step counter included."""
        try:
            self._saver.restore(session, str(self.prefix(step)))
        except (tf.errors.OpError, ValueError) as exc:
            reason = str(exc).splitlines()[0]
            raise TrainingError(
                f"{self.prefix(step)}: does not fit this run ({reason}); resume with the original options"
            ) from exc

    def files(self) -> List[str]:
        """Names of everything of this run in the folder: checkpoints, side-cars, states, spec, and the records that
        name checkpoints.
        """
        if not self._writes:
            return []
        notes = (SPEC_NAME, BEST_NAME, _SAVER_NOTE)
        return sorted(p.name for p in self.folder.iterdir() if _NAME.match(p.name) or p.name in notes)

    def _steps(self) -> List[int]:
        """Steps of all checkpoints, complete or not."""
        found = (_NAME.match(p.name) for p in self.folder.iterdir())
        return sorted({int(match.group(1)) for match in found if match})

    def _state(self, step: int) -> Optional[Dict[str, Any]]:
        path = Path(str(self.prefix(step)) + STATE_SUFFIX)
        try:
            if path.stat().st_size > MAX_STATE_BYTES:
                return None
            state = json.loads(path.read_text(encoding="utf-8"))
            sound = all(
                sha256_of(Path(str(self.prefix(step)) + suffix)) == state["files"][suffix] for suffix in _SUFFIXES
            )
            ours = sound and state["schema"] == STATE_SCHEMA and state["step"] == step
            return state if ours and shaped(state) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ArtifactError):
            return None

    def _remove_old(self, best: Optional[int]) -> None:
        """Remove all but the newest and the best, state files first, so that a run never resumes from a partly removed
        one.
        """
        for step in self._steps()[: -self._keep]:
            if step == best:
                continue
            prefix = str(self.prefix(step))
            data = [Path(prefix + suffix) for suffix in _SUFFIXES]
            for path in [Path(prefix + STATE_SUFFIX)] + [sidecar_path(p) for p in data] + data:
                if path.exists():
                    path.unlink()
