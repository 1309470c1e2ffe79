# SPDX-License-Identifier: Apache-2.0
"""Memory of the simulated device and page-locked host memory: real process memory with a table of live blocks.

Any code can read and write the addresses (ctypes, NumPy), as device programs do with host addresses. Copies that would
leave a known block are refused; unknown addresses are the client's own memory.
"""

from __future__ import annotations

import bisect
import ctypes
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from vxm_convert.ascend.acl_codes import DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, HOST_TO_HOST
from vxm_convert.sim.acl.base.args import CONTEXT, call
from vxm_convert.sim.acl.base.state import HIGHEST_ADDRESS, SIM, AclFailure, Device, span_text
from vxm_convert.sim.acl.streams.stream import stream_of
from vxm_convert.sim.faults import FAULTS

ALIGNMENT = 64
_ROUND = 32
#: Fresh memory is undefined on a device; small blocks are filled with this byte, which exposes programs that rely on
#: zeros.
_POISON = 0xCD
_POISON_LIMIT = 1 << 20
_HIGHEST_POLICY = 7
# Kinds above the four named ones: 4 is "decide by the addresses" in newer versions.
_DEFAULT_KIND = 4
_PAGE = 4096
#: Freed memory that strict mode keeps, in bytes.
_QUARANTINE_BYTES = 256 << 20

DEVICE, HOST = "device", "host"


class Block(NamedTuple):
    """A live allocation: `size` bytes from `address`; `booked` bytes of device `device_id` are accounted for it."""

    address: int
    size: int
    place: str
    device_id: int
    booked: int
    keep: np.ndarray


class MemoryTable:
    """Live allocations, found by any address inside them."""

    def __init__(self) -> None:
        self._blocks: Dict[int, Block] = {}
        self._starts: List[int] = []
        self._freed: Deque[Block] = deque()
        self._freed_bytes = 0

    def allocate(self, size: int, place: str, device: Optional[Device], booked: int, code: int) -> int:
        """A new block of `size` bytes, 64-byte aligned; raises AclFailure(`code`) if there is no memory for it."""
        with SIM.lock:
            if device is not None:
                device.reserve(booked, code)
            try:
                keep = np.empty(size + ALIGNMENT, np.uint8)
            except MemoryError:
                if device is not None:
                    device.give_back(booked)
                raise AclFailure(code, f"the host of the simulation does not have {size} bytes left") from None
            base = int(keep.ctypes.data)
            address = -(-base // ALIGNMENT) * ALIGNMENT
            if size <= _POISON_LIMIT:
                keep.fill(_POISON)
            self._blocks[address] = Block(address, size, place, device.device_id if device else -1, booked, keep)
            bisect.insort(self._starts, address)
        return address

    def release(self, address: int, place: str) -> None:
        """Free the block that starts at `address`; raises AclFailure(107000) for anything else."""
        with SIM.lock:
            block = self._blocks.get(address)
            if block is None or block.place != place:
                raise AclFailure(
                    107000, f"{place} memory {address:#x} cannot be freed: {self._why_not(address, block)}"
                )
            del self._blocks[address]
            self._starts.remove(address)
            if block.device_id >= 0:
                SIM.devices[block.device_id].give_back(block.booked)
            if SIM.strict:
                self._quarantine(block)

    def _why_not(self, address: int, block: Optional[Block]) -> str:
        if block is not None:
            return f"it is {block.place} memory"
        if any(freed.address == address for freed in self._freed):
            SIM.note(f"memory {address:#x} is freed twice")
            return "it was freed before (double free)"
        return "no allocation starts there"

    def _quarantine(self, block: Block) -> None:
        """Keep freed memory for a while, so that its addresses are not reused and late uses are detected."""
        self._freed.append(block)
        self._freed_bytes += block.size
        while self._freed_bytes > _QUARANTINE_BYTES:
            self._freed_bytes -= self._freed.popleft().size

    def freed_around(self, address: int) -> Optional[Block]:
        """The recently freed block that contained `address`; known only in strict mode."""
        with SIM.lock:
            return next((b for b in self._freed if b.address <= address < b.address + b.size), None)

    def find(self, address: int) -> Optional[Block]:
        """The live block that contains `address`, if any."""
        with SIM.lock:
            position = bisect.bisect_right(self._starts, address) - 1
            if position < 0:
                return None
            block = self._blocks[self._starts[position]]
        return block if address < block.address + block.size else None

    def live(self, place: Optional[str] = None) -> List[Block]:
        with SIM.lock:
            return [b for b in self._blocks.values() if place in (None, b.place)]

    def release_device(self, device_id: int) -> int:
        """Free all memory of a device that is being reset; returns how many blocks the client had left."""
        left = [b for b in self.live(DEVICE) if b.device_id == device_id]
        for block in left:
            self.release(block.address, DEVICE)
        return len(left)

    def clear(self) -> None:
        with SIM.lock:
            self._blocks.clear()
            del self._starts[:]
            self._freed.clear()
            self._freed_bytes = 0


MEMORY = MemoryTable()


def check_span(address: int, count: int, what: str) -> Optional[Block]:
    """The known block around ``[address, address + count)``; None for the client's own memory.

    Raises
    ------
    AclFailure
        107000 for a null or impossible address, or if the span exceeds a live allocation.
    """
    if address < _PAGE or address + count > HIGHEST_ADDRESS:
        raise AclFailure(107000, f"{what}: {span_text(address, count)} is not in memory")
    block = MEMORY.find(address)
    if block is None and SIM.strict:
        freed = MEMORY.freed_around(address)
        if freed is not None:
            SIM.find(
                f"{what}: {span_text(address, count)} is in {freed.place} memory that was freed (use after free)",
                107000,
            )
    if block is not None and address + count > block.address + block.size:
        raise AclFailure(
            107000, f"{what}: {span_text(address, count)} leaves its allocation {span_text(block.address, block.size)}"
        )
    return block


def allocate_on_device(size: int, extra: int = _ROUND) -> int:
    """Device memory in the current context; the device books the request rounded up to 32 bytes plus `extra`."""
    if size == 0:
        raise AclFailure(100000, "size is 0")
    device = SIM.current_device()
    strike = FAULTS.at_malloc(size)
    if strike is not None:
        raise AclFailure(*strike)
    return MEMORY.allocate(size, DEVICE, device, -(-size // _ROUND) * _ROUND + extra, 207001)


def _check_policy(policy: int) -> None:
    if policy > _HIGHEST_POLICY:
        raise AclFailure(100000, f"memory policy {policy}, expected 0..{_HIGHEST_POLICY}")


@call("rt.malloc", "KI", gives=(0,), needs=CONTEXT)
def malloc(size: int, policy: int) -> int:
    _check_policy(policy)
    return allocate_on_device(size)


@call("rt.malloc_cached", "KI", gives=(0,), needs=CONTEXT)
def malloc_cached(size: int, policy: int) -> int:
    return malloc(size, policy)


@call("rt.malloc_with_cfg", "KID", gives=(0,), needs=CONTEXT)
def malloc_with_cfg(size: int, policy: int, config: Optional[Dict[str, Any]]) -> int:
    """The configuration (attributes of the virtual memory) has no visible effect here."""
    return malloc(size, policy)


@call("rt.malloc_align32", "KI", gives=(0,), needs=CONTEXT)
def malloc_align32(size: int, policy: int) -> int:
    _check_policy(policy)
    return allocate_on_device(size, extra=0)


@call("rt.free", "K", needs=CONTEXT)
def free(address: int) -> None:
    if address == 0:
        raise AclFailure(100000, "the address is null")
    MEMORY.release(address, DEVICE)


@call("media.dvpp_malloc", "K", gives=(0,), needs=CONTEXT)
def dvpp_malloc(size: int) -> int:
    """Memory for pictures: ordinary device memory, which plain samples also use for other data."""
    return allocate_on_device(size)


@call("media.dvpp_free", "K", needs=CONTEXT)
def dvpp_free(address: int) -> None:
    free(address)


@call("rt.malloc_host", "K", gives=(0,), needs=CONTEXT)
def malloc_host(size: int) -> int:
    if size == 0:
        raise AclFailure(100000, "size is 0")
    if size > HIGHEST_ADDRESS:
        raise AclFailure(207001, f"{size} bytes of host memory requested")
    return MEMORY.allocate(size, HOST, None, 0, 207001)


@call("rt.free_host", "K", needs=CONTEXT)
def free_host(address: int) -> None:
    if address == 0:
        raise AclFailure(100000, "the address is null")
    MEMORY.release(address, HOST)


@call("rt.get_mem_info", "I", gives=(0, 0), needs=CONTEXT)
def get_mem_info(attribute: int) -> Tuple[int, int]:
    """Attributes 0..5 all name the same memory: the 910 has only HBM, and clients use 0 and 1."""
    if attribute > 5:
        raise AclFailure(100000, f"memory attribute {attribute}, expected 0..5")
    device = SIM.current_device()
    return device.memory_bytes - device.used_bytes, device.memory_bytes


def _check_set(address: int, max_count: int, count: int) -> Optional[Block]:
    if count > max_count:
        raise AclFailure(107000, f"memset: {count} bytes into a buffer declared with {max_count}")
    return check_span(address, count, "memset")


@call("rt.memset", "KKiK", needs=CONTEXT)
def memset(address: int, max_count: int, value: int, count: int) -> None:
    _check_set(address, max_count, count)
    ctypes.memset(address, value & 0xFF, count)


@call("rt.memset_async", "KKiKK", needs=CONTEXT)
def memset_async(address: int, max_count: int, value: int, count: int, stream: int) -> None:
    block = _check_set(address, max_count, count)

    def work(held: Optional[Block] = block) -> None:
        ctypes.memset(address, value & 0xFF, count)

    stream_of(stream).submit(work)


_KIND_ENDS = {
    HOST_TO_HOST: (HOST, HOST),
    HOST_TO_DEVICE: (HOST, DEVICE),
    DEVICE_TO_HOST: (DEVICE, HOST),
    DEVICE_TO_DEVICE: (DEVICE, DEVICE),
}


def _check_copy(target: int, limit: int, source: int, count: int, kind: int) -> Tuple[Optional[Block], Optional[Block]]:
    """The blocks of both ends of a valid copy, the source's first."""
    if count == 0 or count > limit:
        raise AclFailure(107000, f"memcpy: {count} bytes into a buffer declared with {limit}")
    if kind > _DEFAULT_KIND:
        raise AclFailure(107000, f"memcpy: kind {kind}, expected 0..{_DEFAULT_KIND}")
    ends = (check_span(source, count, "memcpy source"), check_span(target, count, "memcpy destination"))
    if kind in _KIND_ENDS:
        for block, told, end in zip(ends, _KIND_ENDS[kind], ("source", "destination")):
            is_place = DEVICE if block is not None and block.place == DEVICE else HOST
            if is_place != told:
                SIM.find(f"memcpy of kind {kind} has a {is_place} {end}, the kind requires {told}", 107000)
    return ends


@call("rt.memcpy", "KKKKI", needs=CONTEXT)
def memcpy(target: int, limit: int, source: int, count: int, kind: int) -> None:
    _check_copy(target, limit, source, count, kind)
    ctypes.memmove(target, source, count)


@call("rt.memcpy_async", "KKKKIK", needs=CONTEXT)
def memcpy_async(target: int, limit: int, source: int, count: int, kind: int, stream: int) -> None:
    """Pageable host memory makes the call wait for the copy (CANN 8 reference); page-locked memory does not."""
    if kind == HOST_TO_HOST:
        raise AclFailure(207000, "memcpy_async does not copy from host to host")
    ends = _check_copy(target, limit, source, count, kind)
    queue = stream_of(stream)

    # The default argument keeps both allocations readable until the copy is done, even if the client frees them.
    def work(held: Tuple[Optional[Block], ...] = ends) -> None:
        ctypes.memmove(target, source, count)

    queue.submit(work)
    if None in ends:
        queue.wait()
