# SPDX-License-Identifier: Apache-2.0
"""Options about devices and loss scaling, and the settings made from them; opens no device."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.devices.choice import DEVICES
from train.run.resume import scaling_of
from train.settings.npu import NpuSettings
from train.settings.npu_parameters import PRECISION_MODES, parse_parameter
from train.settings.run import SCALINGS, ScaleSettings
from vxm_convert.errors import SpecError


def add_device_groups(parser: argparse.ArgumentParser) -> None:
    """``--device`` and the options that belong to it."""
    device = parser.add_argument_group("device")
    device.add_argument(
        "--device",
        default="auto",
        choices=DEVICES,
        help="device to train on; auto prefers an NPU, then a GPU, then the CPU (default: %(default)s)",
    )
    device.add_argument(
        "--loss-scale",
        default="auto",
        choices=("auto",) + SCALINGS,
        help="scaling of the loss while gradients are taken; auto: as in the resumed run, else exponential on an NPU "
        "and none elsewhere (default: %(default)s)",
    )
    device.add_argument(
        "--loss-scale-value",
        default=2.0**32,
        type=float,
        metavar="SCALE",
        help="fixed: the scale; exponential: the first scale (default: 4294967296)",
    )
    device.add_argument(
        "--loss-scale-grow-every",
        default=1000,
        type=int,
        metavar="STEPS",
        help="exponential: number of good steps in a row after which the scale doubles (default: %(default)s)",
    )
    device.add_argument(
        "--loss-scale-shrink-after",
        default=2,
        type=int,
        metavar="STEPS",
        help="exponential: number of steps with overflow after which the scale halves (default: %(default)s)",
    )
    device.add_argument(
        "--workers",
        default="",
        metavar="HOST:PORT,...",
        help="addresses of all processes that train together on CPUs or GPUs; start each with the same options and "
        "its own --rank (default: one process)",
    )
    device.add_argument(
        "--rank",
        default=0,
        type=int,
        metavar="N",
        help="position of this process in --workers, or among NPUs that find each other by CM_CHIEF_IP, from 0 (default: "
        "%(default)s)",
    )
    device.add_argument(
        "--worker-timeout",
        default=1800,
        type=int,
        metavar="SECONDS",
        help="longest time in seconds that a step waits for the other processes (default: %(default)s)",
    )
    _add_npu(parser.add_argument_group("NPU", "refused on other devices"))


def npu_settings(args: argparse.Namespace) -> NpuSettings:
    """Check the options on any device: a wrong value should not wait for a machine with an NPU."""
    return NpuSettings(
        precision_mode=args.precision_mode,
        modify_mixlist=args.modify_mixlist,
        fusion_switch=args.fusion_switch,
        iterations_per_loop=args.iterations_per_loop,
        device_id=args.device_id,
        data_dump=args.data_dump,
        data_dump_step=args.data_dump_step,
        over_dump=args.over_dump,
        profiling=args.profiling,
        more=tuple(parse_parameter(text) for text in args.npu_parameter),
    )


def check_npu_use(settings: NpuSettings, device: str, why: str) -> None:
    """Raise SpecError for options of an NPU where the run is on another device."""
    usual = NpuSettings()
    odd = [name for name, value in vars(settings).items() if value != getattr(usual, name)]
    if device != "npu" and odd:
        option = "--npu-parameter" if odd[0] == "more" else "--" + odd[0].replace("_", "-")
        raise SpecError(
            f"{option}: has an effect on an NPU only, and the run is on the {device} ({why}); leave it out, or pass "
            "--device npu"
        )


def scale_settings(args: argparse.Namespace, device: str) -> ScaleSettings:
    """`device`: cpu, gpu or npu; a resumed run keeps its scaling on another device."""
    kind = args.loss_scale
    if kind == "auto":
        before = scaling_of(args.out) if args.resume else None
        kind = before or ("exponential" if device == "npu" else "none")
        usual = ScaleSettings()
        if kind == "none" and (args.loss_scale_value, args.loss_scale_grow_every, args.loss_scale_shrink_after) != (
            usual.value,
            usual.grow_every,
            usual.shrink_after,
        ):
            raise SpecError(
                f"loss-scale-value: nothing scales the loss on the {device}; pass --loss-scale fixed or exponential, or "
                "leave out the --loss-scale options"
            )
    return ScaleSettings(kind, args.loss_scale_value, args.loss_scale_grow_every, args.loss_scale_shrink_after)


def _add_npu(npu: argparse._ArgumentGroup) -> None:
    npu.add_argument(
        "--precision-mode",
        default=PRECISION_MODES[0],
        choices=PRECISION_MODES,
        metavar="MODE",
        help=f"precision mode of the adapter: {', '.join(PRECISION_MODES)} (default: %(default)s)",
    )
    npu.add_argument(
        "--modify-mixlist",
        default=None,
        type=Path,
        metavar="FILE",
        help="JSON file of operators that mixed precision treats differently (default: none)",
    )
    npu.add_argument(
        "--fusion-switch",
        default="default",
        metavar="FILE|default|off|none",
        help="JSON file that switches fusion passes; default: one UB fusion pass off; off: all passes off; none: no "
        "file (default: %(default)s)",
    )
    npu.add_argument(
        "--iterations-per-loop",
        default=1,
        type=int,
        metavar="STEPS",
        help="steps per call of the device, of which only the last is logged (default: %(default)s)",
    )
    npu.add_argument(
        "--device-id",
        default=None,
        type=int,
        metavar="N",
        help="logical number of the device (default: $ASCEND_DEVICE_ID, else 0)",
    )
    npu.add_argument(
        "--data-dump",
        action="store_true",
        help="write inputs and outputs of all operators to OUT/npu/dump (default: off)",
    )
    npu.add_argument(
        "--data-dump-step", default="0", metavar="STEPS", help="steps to dump, such as 0|5|10-20 (default: %(default)s)"
    )
    npu.add_argument(
        "--over-dump",
        action="store_true",
        help="write inputs and outputs of operators that overflow to OUT/npu/overflow (default: off)",
    )
    npu.add_argument("--profiling", action="store_true", help="write a profile to OUT/npu/profiling (default: off)")
    npu.add_argument(
        "--npu-parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another session parameter of the adapter, such as op_select_implmode=high_precision; may be repeated "
        "(default: none)",
    )
