# SPDX-License-Identifier: Apache-2.0
"""Pairs to train on: repeatable, in the ranges they promise, and their images show what their labels say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vxm_convert.errors import SpecError
from vxm_convert.synthetic.anatomy import SULCUS, head_labels, random_head, random_shapes, relative_of
from vxm_convert.synthetic.appearance import Scale, random_contrast, random_scan
from vxm_convert.synthetic.heads import STRUCTURES
from vxm_convert.synthetic.training_pairs import SCORED, SyntheticSettings, TrainingPair, make_training_pair

SHAPE = (32, 48, 40)
NAMES = tuple(TrainingPair.__dataclass_fields__)


def pair(number: int = 0, **changes: object) -> TrainingPair:
    return make_training_pair(SyntheticSettings(SHAPE, **{"seed": 3, **changes}), number)


@pytest.mark.parametrize("heads", [0.0, 1.0])
def test_arrays_are_what_they_are_said_to_be(heads: float) -> None:
    for number in range(4):
        made = pair(number, heads=heads)
        for name in NAMES:
            array = getattr(made, name)
            assert array.shape == SHAPE
            assert array.dtype == (np.uint8 if name.endswith("labels") else np.float32)
            assert np.isfinite(array).all()
            assert 0 <= array.min() and array.max() <= (SCORED if name.endswith("labels") else 1)
        for image in (made.moving, made.fixed):
            assert 0.3 < image.max() and image.std() > 0.01


@pytest.mark.parametrize("heads", [0.0, 1.0])
def test_a_pair_depends_on_seed_and_number_alone(heads: float) -> None:
    first, again = pair(5, heads=heads), pair(5, heads=heads)
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in NAMES)
    for other in (pair(6, heads=heads), pair(5, heads=heads, seed=4)):
        assert not any(np.array_equal(getattr(first, name), getattr(other, name)) for name in NAMES)


def test_another_process_makes_the_same_pair(project_root: Path) -> None:
    code = (
        "import hashlib; from vxm_convert.synthetic.training_pairs import *; "
        f"p = make_training_pair(SyntheticSettings({SHAPE}, 3), 1); "
        "print(hashlib.sha256(p.moving.tobytes() + p.fixed_labels.tobytes()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=str(project_root),
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(hashes) == 1


def test_labels_of_both_scans_are_the_same_structures_elsewhere() -> None:
    for number in range(6):
        made = pair(number)
        assert set(np.unique(made.moving_labels)) == set(np.unique(made.fixed_labels))
        assert (made.moving_labels != made.fixed_labels).mean() > 0.01


def test_plain_images_have_one_value_inside_a_label_in_both() -> None:
    for number in range(4):
        made = pair(number, heads=0.0)
        compared = 0
        for label in np.unique(made.moving_labels[made.moving_labels > 0]):
            values = []
            for labels, image in ((made.moving_labels, made.moving_plain), (made.fixed_labels, made.fixed_plain)):
                inside = ndimage.binary_erosion(labels == label, iterations=4)
                values.append(image[inside])
            if min(map(len, values)) > 5:
                compared += 1
                assert np.concatenate(values).std() < 0.02
        assert compared


def test_a_scan_shows_the_edges_of_its_labels() -> None:
    rng = np.random.RandomState(0)
    ratios = []
    for _ in range(6):
        labels = random_shapes(rng, SHAPE)
        image = random_scan(rng, labels, random_contrast(rng, "shapes"), Scale(1.0, 1.0))
        slope = ndimage.gaussian_gradient_magnitude(image, 1.0)
        inside = ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)
        ratios.append(slope[~inside].mean() / slope[inside].mean())
    assert np.mean(ratios) > 2


def test_equal_contrast_is_equal_and_free_contrast_is_not() -> None:
    """Correlation of the mean intensities that the labels of a pair have in the two scans."""

    def agreement(share: float) -> float:
        found = []
        for number in range(10):
            made = pair(number, heads=0.0, same_contrast=share)
            ids = np.unique(made.moving_labels[made.moving_labels > 0])
            means = [
                ndimage.mean(image, labels, ids)
                for image, labels in ((made.moving, made.moving_labels), (made.fixed, made.fixed_labels))
            ]
            found.append(np.corrcoef(means)[0, 1])
        return float(np.mean(found))

    assert agreement(1.0) > 0.9
    assert abs(agreement(0.0)) < 0.4


def test_heads_show_their_structures() -> None:
    rng = np.random.RandomState(1)
    heads = [random_head(rng, (96, 96, 96)) for _ in range(4)]
    seen = set(np.unique(np.stack([head_labels(head) for head in heads])))
    assert {0, 2, 3, 41, 42, SULCUS} <= seen
    ids = {label for one in STRUCTURES for label in (one.left, one.right)}
    assert len(seen & ids) > 0.7 * len(ids)
    assert seen <= ids | {0, 2, 3, 41, 42, SULCUS}


def test_a_relative_is_another_head_of_the_same_kind() -> None:
    rng = np.random.RandomState(2)
    head = random_head(rng, (64, 64, 64))
    first, other = head_labels(head), head_labels(relative_of(rng, head))
    assert 0.02 < (first != other).mean() < 0.5


@pytest.mark.parametrize(
    "changes", [{"shape": (15, 32, 32)}, {"shape": (32, 32)}, {"shape": (32, 32, 33)}, {"heads": 1.5}]
)
def test_impossible_settings_are_refused(changes: dict) -> None:
    with pytest.raises(SpecError, match="got"):
        SyntheticSettings(**{"shape": SHAPE, **changes})
