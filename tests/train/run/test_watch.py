# SPDX-License-Identifier: Apache-2.0
"""Warnings, and the pictures of a pair."""

from __future__ import annotations

import zlib

import numpy as np

from train.run.pictures import pair_pictures, warped_grid
from train.run.watch import Watch, scaling_warnings
from vxm_convert.webpage.png import plain_png


def test_a_flow_that_stays_flat_is_called_so_after_a_while() -> None:
    watch = Watch({})
    assert watch.close_epoch(99, 1e-5, 0.0) == []
    assert "flow stays near zero" in watch.close_epoch(100, 1e-5, 0.0)[0]
    assert watch.close_epoch(200, 0.3, 0.0) == []


def test_growing_folding_is_called_so_and_the_state_survives() -> None:
    watch = Watch({})
    assert watch.close_epoch(500, 1.0, 0.009) == []
    assert "folding grows: 3.0 %" in watch.close_epoch(600, 1.0, 0.03)[0]
    assert Watch(watch.state).close_epoch(700, 1.0, 0.04) == []
    assert "folding grows" in Watch({}).close_epoch(700, 1.0, 0.04)[0]


def test_pictures_are_the_middle_slices() -> None:
    volume = np.random.RandomState(0).rand(6, 8, 10)
    shown = pair_pictures(volume, volume, volume, np.zeros((6, 8, 10, 3)))
    assert set(shown) == {"moving", "fixed", "moved", "warped grid"}
    assert all(p.dtype == np.uint8 and p.shape == (8, 10 + 10 + 8) for p in shown.values())
    np.testing.assert_array_equal(shown["moved"][:, :10], np.rint(255 * volume[3]))
    np.testing.assert_array_equal(shown["moved"][:6, 20:], np.rint(255 * volume[:, :, 5]))


def test_the_grid_moves_with_the_flow() -> None:
    flow = np.zeros((16, 16, 16, 3), np.float32)
    still = warped_grid(flow)[:, :16]
    assert still[0].min() == 255 and still[8].min() == 255 and still[4, 4] == 0
    flow[..., 1] = 3.0
    # The voxel five before a line looks three ahead: rows 5 and 13 show lines.
    moved = warped_grid(flow)[:, :16]
    assert moved[5].min() == 255 and moved[13].min() == 255 and moved[0, 4] == 0


def test_png_is_what_the_specification_says() -> None:
    data = plain_png(np.array([[0, 128, 255], [1, 2, 3]], np.uint8))
    assert (
        data[:8] == b"\x89PNG\r\n\x1a\n"
        and data[12:16] == b"IHDR"
        and data[16:26] == b"\x00\x00\x00\x03\x00\x00\x00\x02\x08\x00"
    )
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    content = data[start + 4 : start + 4 + length]
    assert zlib.decompress(content) == b"\x00\x00\x80\xff\x00\x01\x02\x03"
    assert int.from_bytes(data[start + 4 + length : start + 8 + length], "big") == zlib.crc32(b"IDAT" + content)


def test_overflows_are_worth_a_word_when_there_are_many() -> None:
    assert not scaling_warnings(2.0**32, 45, 1000)
    assert "101 of 1000 steps overflowed" in scaling_warnings(2.0**32, 101, 1000)[0]
    assert "fallen to 1" in scaling_warnings(1.0, 2, 1000)[0]
