# SPDX-License-Identifier: Apache-2.0
"""A run over several devices, from the parsed command line."""

from __future__ import annotations

import argparse

from om_runner.cluster.engine import ClusterEngine
from om_runner.device.offline_model import open_model
from om_runner.options.cluster import devices_from
from om_runner.registration.job import Settings
from om_runner.registration.session import run_session


def run_on_cluster(settings: Settings, args: argparse.Namespace) -> int:
    """Register the cohort on ``--devices`` or the workers of ``--scheduler``; returns the exit code."""
    devices = None
    if args.scheduler is None:
        simulated = open_model(settings.model, settings.contract, settings.toolchain).simulated
        devices = devices_from(args, simulated)
    return run_session(settings, engine=ClusterEngine(devices, args.scheduler))
