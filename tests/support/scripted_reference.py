# SPDX-License-Identifier: Apache-2.0
"""A reference without TensorFlow: its results are the arithmetic of the fakes."""

from __future__ import annotations

import numpy as np
import pytest

from om_runner.precision import report as precision
from om_runner.precision.store import REFERENCE_FLOW, REFERENCE_MOVED
from om_runner.registration import session
from tests.support import fakes


class ScriptedReference:
    """Takes the place of the TensorFlow process; its results are `arithmetic` of the stored inputs."""

    tensorflow_version = "scripted"

    def __init__(self, python, pb, contract, store):
        self.store = store
        self.groups = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, subjects):
        self.groups.append(list(subjects))
        for subject in subjects:
            images = (self.store.get(subject, "moving"), self.store.fixed(subject))
            outputs = fakes.arithmetic(*(image[np.newaxis, ..., np.newaxis] for image in images))
            np.save(str(self.store.path(subject, REFERENCE_MOVED)), outputs["moved"][0, ..., 0])
            np.save(str(self.store.path(subject, REFERENCE_FLOW)), outputs["flow"][0])
        return 1.0


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(precision, "ReferenceProcess", ScriptedReference)
    monkeypatch.setattr(session, "check_reference_python", lambda python: None)


def off_by_little(outputs):
    outputs["moved"][:, 3, 4, 5, 0] += np.float32(1 / 64)
    outputs["flow"][:, 6, 7, 8] += np.float32([0.25, 0, 0])
