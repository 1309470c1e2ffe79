# SPDX-License-Identifier: Apache-2.0
"""A run in words: its first log line, and the head of its report."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from train.data.cohort import Cohort
from train.settings.run import TrainSettings


def loss_text(settings: TrainSettings) -> str:
    """The loss."""
    spec, loss = settings.spec, settings.loss
    terms = (
        f"mse / {loss.image_sigma:g}^2 + divergence with prior {loss.prior_lambda:g}"
        if spec.diffeomorphic
        else f"{loss.image} + {loss.smoothness:g} x flow gradient ({loss.penalty})"
    )
    return terms + (f" + {loss.dice_weight:g} x (1 - Dice of {loss.labels})" if loss.dice_weight else "")


def counts_text(cohort: Cohort) -> str:
    """Number of scans in each part."""
    if not cohort.subjects:
        return "synthetic pairs"
    return f"{len(cohort.train)} scans, {len(cohort.validation)} for validation, {len(cohort.test)} for test"


def network_text(settings: TrainSettings) -> str:
    """Variant and grid."""
    return f"{settings.spec.variant} at {'x'.join(str(n) for n in settings.spec.volume_shape)}"


def headline(settings: TrainSettings, cohort: Cohort) -> str:
    """One line."""
    return f"{network_text(settings)} on {counts_text(cohort)}; loss {loss_text(settings)}"


def facts_of(
    settings: TrainSettings, cohort: Cohort, steps: int, last: str, best: Optional[Mapping[str, Any]]
) -> Dict[str, Any]:
    """Name → value for the head of the report.

    Parameters
    ----------
    steps : int — of an epoch.
    last : str — name of the last checkpoint.
    best : mapping or None — step, figure and score of the best one in validation.
    """
    scale = settings.scale
    facts = {
        "network": network_text(settings),
        "device": settings.device.upper(),
        "scans": counts_text(cohort),
        "loss": loss_text(settings),
        "training": f"{settings.epochs} epochs of {steps} steps, batch {settings.spec.batch}, learning rate "
        f"{settings.learning_rate:g}, "
        f"seed {settings.seed}",
        "loss scale": scale.kind if scale.kind == "none" else f"{scale.kind}, from {scale.value:g}",
        "last checkpoint": last,
    }
    if best:
        facts["best checkpoint"] = f"step {best['step']}, {best['figure']} {best['score']:.6g}"
    return facts
