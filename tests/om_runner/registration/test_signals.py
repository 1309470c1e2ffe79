# SPDX-License-Identifier: Apache-2.0
"""Waiting in the main thread, which signals must be able to end."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from om_runner.registration import signals
from om_runner.registration.signals import wait_for


class Slow(Future):
    """Done after some looks, or never (0); notes how long each may take."""

    def __init__(self, looks):
        super().__init__()
        self.left, self.asked = looks, []

    def result(self, timeout=None):
        self.asked.append(timeout)
        self.left -= 1
        if self.left == 0:
            self.set_result("done")
        return super().result(0)


def test_a_long_wait_is_many_short_ones():
    slow = Slow(5)
    assert wait_for(slow) == "done" and slow.asked == [signals._LOOK] * 5


def test_the_limit_is_kept():
    slow = Slow(0)
    with pytest.raises(FutureTimeout):
        wait_for(slow, 0.01)
    assert all(0 <= seconds <= 0.01 for seconds in slow.asked)


def test_a_timeout_of_the_work_itself_is_its_error():
    future = Future()
    future.set_exception(FutureTimeout("of the device"))
    with pytest.raises(FutureTimeout, match="of the device"):
        wait_for(future)
