# SPDX-License-Identifier: Apache-2.0
"""How fast the parts of a chip are taken to be, each figure with where it comes from; nothing here was measured. Clocks,
bandwidths and cores are in `vxm_convert.ascend.chips`.

They feed `timing`, whose results are estimates: good for comparing two graphs or two batch sizes, not for promising
milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

from vxm_convert.ascend.chips import CHIPS, DEFAULT_SOC, GENERAL, Speed, canonical
from vxm_convert.ascend.limits import CHANNEL_BLOCK

#: products per cycle of one core's cube unit: a block of 16×16×16 in fp16, the unit of its matrix instruction and
#: fractal layouts
CUBE_PRODUCTS = CHANNEL_BLOCK**3
#: bytes that one core's vector unit takes per cycle
VECTOR_BYTES = 256
#: shares of the peak that a kernel reaches
CUBE_SHARE, MEMORY_SHARE = 0.5, 0.6
#: seconds that a kernel costs beyond its work, on the AI cores, on the AI CPU, and of a step of a loop's control flow
LAUNCH, CPU_LAUNCH, CONTROL_LAUNCH = 5e-6, 1e-4, 1e-5
#: AI CPU: elements per second of a scalar operator, and bytes per second where it only copies
CPU_ELEMENTS, CPU_BYTES = 5e8, 5e9
#: shortest piece of memory that a kernel moves
BURST = 32
#: cycles of one core per gathered row, of GatherV2 and of the element-by-element GatherNd
GATHER_CYCLES, GATHER_ND_CYCLES = 20, 100
#: parts that one kernel of Split, ConcatV2, Pack or Unpack takes, and seconds per part
PARTS_PER_KERNEL, PART_SECONDS = 63, 1e-6

ASSUMED = "assumed"
SPEEDS: Dict[str, Speed] = {name: chip.speed for name, chip in CHIPS.items() if chip.speed is not None and chip.cores}
#: whose figures stand in for a chip that has none
STAND_IN = DEFAULT_SOC


@dataclass(frozen=True)
class Device:
    """Rates of a chip, per second: products of the cube unit, bytes of vector units, memory and host link, core
    cycles.
    """

    soc_version: str
    #: the chip whose figures these are: another one where ours are not known
    figures_of: str
    cube: float
    vector: float
    memory: float
    link: float
    cycles: float

    @property
    def known(self) -> bool:
        return self.figures_of == canonical(self.soc_version)


def device_of(soc_version: str) -> Device:
    """The rates of a ``--soc-version``; those of `STAND_IN` where the tables do not know it."""
    name = canonical(soc_version)
    name = name if name in SPEEDS else STAND_IN
    speed, cores = SPEEDS[name], CHIPS[name].cores or 0
    cycles = cores * speed.ghz * 1e9
    return Device(
        soc_version,
        name,
        cycles * CUBE_PRODUCTS * CUBE_SHARE,
        cycles * VECTOR_BYTES,
        speed.memory_gbs * 1e9 * MEMORY_SHARE,
        speed.link_gbs * 1e9,
        cycles,
    )


def assumptions(device: Device) -> List[Tuple[str, str, str]]:
    """(what, value, where it comes from) of everything the estimate rests on."""
    speed, cores = SPEEDS[device.figures_of], CHIPS[device.figures_of].cores
    clock = f"{cores} cores, {speed.ghz:g} GHz"
    rows = [
        ("AI cores and clock", clock, speed.clock_source),
        (
            "cube unit",
            f"16x16x16 fp16 products per cycle and core, {CUBE_SHARE:.0%} of the peak reached",
            "the chip's instruction set; the share is assumed",
        ),
        (
            "channels of convolutions",
            f"padded to blocks of {CHANNEL_BLOCK}",
            "layouts NDC1HWC0 and FRACTAL_Z_3D, CANN's open sources",
        ),
        ("vector units", f"{VECTOR_BYTES} bytes per cycle and core", ASSUMED),
        (
            "device memory",
            f"{speed.memory_gbs:g} GB/s, {MEMORY_SHARE:.0%} reached; no tensor stays in a cache",
            f"{GENERAL}; the share is assumed",
        ),
        (
            "host link",
            f"{speed.link_gbs:g} GB/s; copies do not overlap execution",
            "between the 10 and 16 GB/s of PCIe 3 x16; assumed",
        ),
        ("start of a kernel", f"{LAUNCH * 1e6:g} us on AI cores, {CPU_LAUNCH * 1e6:g} us on the AI CPU", ASSUMED),
        ("AI CPU", f"{CPU_ELEMENTS:g} elements/s, {CPU_BYTES / 1e9:g} GB/s where it copies", ASSUMED),
        (
            "gathering",
            f"{GATHER_CYCLES} cycles of a core and {BURST} bytes at least per row; GatherNd {GATHER_ND_CYCLES} cycles",
            "that GatherNd is a scalar loop: CANN's open sources; the cycles are assumed",
        ),
        (
            "Split, ConcatV2, Pack, Unpack",
            f"{PARTS_PER_KERNEL} parts per kernel, {PART_SECONDS * 1e6:g} us per part, pieces below {BURST} bytes "
            f"move {BURST}",
            ASSUMED,
        ),
        (
            "loops of TensorFlow 1",
            f"steps as the loop's bound says, {CONTROL_LAUNCH * 1e6:g} us per control operator and step",
            ASSUMED,
        ),
        (
            "fusions",
            "a bias is part of its convolution; nothing else is fused",
            "CANN's fusion rules; the rest is assumed",
        ),
        ("the fixed image", "stays on the device between runs", "om_runner does so"),
    ]
    if not device.known:
        rows.insert(
            0, ("chip", f"no figures for {device.soc_version}: those of {device.figures_of} were taken", ASSUMED)
        )
    return rows
