# SPDX-License-Identifier: Apache-2.0
"""What must be equal to resume a run exactly: settings and data by hash; and the log, cut back to the checkpoint."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from train.settings.run import TrainSettings
from vxm_convert.artifacts.files import read_bounded, write_text
from vxm_convert.errors import ArtifactError, TrainingError

LOG = logging.getLogger(__name__)

STATE_SUFFIX = ".state.json"
MAX_STATE_BYTES = 16 << 20
_MAX_SHOWN = 6
_FIGURES = ("folding", "displacement", "seconds_per_step", "skipped", "steps")
_LARGEST = 1e300
_MOST_STEPS = 2**53


def fingerprint(settings: TrainSettings, steps: int, ranks: int, made_from: Dict[str, str]) -> Dict[str, Any]:
    """Everything that influences the weights; epochs, checkpoint intervals and output may change."""
    loss, data = settings.loss, settings.data
    values = {
        "model": settings.spec.to_dict(),
        "loss": loss.image,
        "lambda": loss.smoothness,
        "penalty": loss.penalty,
        "prior_lambda": loss.prior_lambda,
        "image_sigma": loss.image_sigma,
        "bidir": loss.bidirectional,
        "dice_weight": loss.dice_weight,
        "labels": loss.labels,
        "lr": settings.learning_rate,
        "steps_per_epoch": steps,
        "seed": settings.seed,
        "pairs": data.pairing,
        "split": list(data.split),
        "augment": sorted(data.augment),
        "threads": settings.threads,
        "loss_scale": settings.scale.to_dict(),
        # With auto, it may change with the device.
        "convolutions": None if settings.convolutions == "auto" else settings.convolutions,
        "synthetic": data.synthetic.to_dict() if data.synthetic is not None else None,
        "lr_half_life": settings.lr_half_life,
        "workers": ranks if ranks > 1 else None,
        "files": dict(made_from),
    }
    # In the form in which it is read back: tuples become lists.
    as_read: Dict[str, Any] = json.loads(json.dumps(values))
    return as_read


def scaling_of(folder: Path) -> Optional[str]:
    """Loss scaling of the run in a folder; None if there is no state of a checkpoint."""
    for path in sorted(Path(folder).glob("*" + STATE_SUFFIX)):
        try:
            state = json.loads(
                read_bounded(path, MAX_STATE_BYTES, "the state of a checkpoint", "check its permissions").decode(
                    "utf-8"
                )
            )
            scale = state["fingerprint"].get("loss_scale") or {"kind": "none"}
            return str(scale["kind"])
        except (ArtifactError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return None


def shaped(state: Dict[str, Any]) -> bool:
    """Whether the state of a checkpoint has the types that a resumed run uses."""
    best, found, skipped = state["best"], state["fingerprint"], state.get("skipped", 0)
    return (
        isinstance(found, dict)
        and isinstance(found.get("files", {}), dict)
        and (best is None or (isinstance(best, dict) and isinstance(best["step"], int) and _number(best["score"])))
        and isinstance(state["watch"], dict)
        and _number(state["watch"].get("folded", 0.0))
        and isinstance(state["init"], dict)
        and isinstance(skipped, int)
    )


def check_same_run(found: Dict[str, Any], now: Dict[str, Any], where: Path) -> None:
    """Raise TrainingError with the differences unless a checkpoint's fingerprint equals that of this run."""
    differences = [
        f"{key}: {found.get(key)!r} in the checkpoint, {now[key]!r} now"
        for key in now
        if key != "files" and found.get(key) != now[key]
    ]
    before, files = found.get("files", {}), now["files"]
    differences += [
        f"{role}: the bytes have changed" for role in files if role in before and before[role] != files[role]
    ]
    differences += [f"{role}: new" for role in files if role not in before] + [
        f"{role}: gone" for role in before if role not in files
    ]
    if differences:
        more = [f"and {len(differences) - _MAX_SHOWN} more"] if len(differences) > _MAX_SHOWN else []
        listed = "\n  ".join(differences[:_MAX_SHOWN] + more)
        raise TrainingError(
            f"{where}: cannot be resumed, this is another run:\n  {listed}\npass the original options, or another --out"
        )


def cut_metrics(
    path: Path, step: int, epoch: int, used: Callable[[Dict[str, Any]], object] = lambda record: None
) -> List[Dict[str, Any]]:
    """Drop log entries after the checkpoint and damaged ones (a killed run may end in half a line), return the others.

    Parameters
    ----------
    step : int — first step that will be run again.
    epoch : int — first epoch that will be closed again.
    used : callable — called with every entry to keep; KeyError, TypeError and ValueError mean that it is damaged.
    """
    kept, damaged = [], 0
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    except OSError as exc:
        raise TrainingError(f"{path}: cannot read the log of the run ({exc.strerror}); check its permissions") from exc
    for line in lines:
        try:
            record = json.loads(line)
            if not _sound(record):
                raise ValueError("not an entry of a training")
            if _before(record, step, epoch):
                used(record)
                kept.append(record)
        except (ValueError, RecursionError, KeyError, TypeError):
            damaged += 1
    if damaged:
        LOG.warning("%s: %d lines are damaged and left out", path, damaged)
    write_text(path, "".join(json.dumps(record, sort_keys=True) + "\n" for record in kept))
    return kept


def _before(record: Dict[str, Any], step: int, epoch: int) -> bool:
    if record.get("event") == "epoch":
        return bool(record["epoch"] < epoch)
    return bool(record["step"] < step)


def _sound(record: object) -> bool:
    """Whether an entry has the types that the log and the page of a run use."""
    if not isinstance(record, dict) or not isinstance(record.get("event", ""), str):
        return False
    place = record.get("epoch" if record.get("event") == "epoch" else "step")
    if not isinstance(place, int) or not 0 <= place < _MOST_STEPS:
        return False
    checked = record.get("validation") or {}
    if not isinstance(checked, dict) or not all(value is None or _number(value) for value in checked.values()):
        return False
    figures = [value for key, value in record.items() if key.startswith("loss") or key in _FIGURES]
    return record.get("event") == "loss not finite" or all(map(_number, figures))


def _number(value: object) -> bool:
    return (isinstance(value, float) and abs(value) < _LARGEST) or (isinstance(value, int) and abs(value) < 2**63)
