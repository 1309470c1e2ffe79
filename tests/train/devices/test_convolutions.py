# SPDX-License-Identifier: Apache-2.0
"""Convolutions in blocks compute what TensorFlow's own compute, and so do their gradients; who gets which form."""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from train.data.dataset import placeholders  # noqa: E402
from train.devices.base import Backend  # noqa: E402
from train.devices.cpu_blocks import BlockConvolutions, from_blocks, to_blocks  # noqa: E402
from train.devices.cpu_convolve import convolve  # noqa: E402
from train.graph.training_graph import build_training_graph  # noqa: E402
from train.run.resume import fingerprint  # noqa: E402
from vxm_convert.errors import SpecError  # noqa: E402
from vxm_convert.network.inference_graph import build_inference_graph  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.network.unet import Convolutions  # noqa: E402

pytestmark = pytest.mark.tf

#: double precision, in which the two differ by the order of their sums alone
TOLERANCE = 1e-11


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape)


def values_and_gradients(build: Callable[..., Any], arrays: List[np.ndarray]) -> List[np.ndarray]:
    """Of `build`'s tensor, and of its product with fixed random numbers by every array."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.constant(a) for a in arrays]
        result = build(*inputs)
        weighted = tf.reduce_sum(result * random(99, *result.shape.as_list()))
        return session.run([result] + tf.gradients(weighted, inputs))


def assert_equal(found: List[np.ndarray], expected: List[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert np.abs(other).max() > 1
        np.testing.assert_allclose(one, other, atol=TOLERANCE * np.abs(other).max())


@pytest.mark.parametrize(
    "taps, pads, padding",
    [
        ((3, 3, 3), ((1, 1), (1, 1), (1, 1)), "SAME"),
        ((3, 3, 2), ((1, 1), (0, 0), (0, 0)), None),
        ((2, 2, 2), ((0, 1), (1, 0), (1, 1)), None),
        ((1, 2, 3), ((0, 0), (0, 0), (2, 2)), None),
    ],
)
def test_the_convolution_and_its_gradients(
    taps: Tuple[int, ...], pads: Tuple[Tuple[int, int], ...], padding: Any
) -> None:
    arrays = [random(1, 2, 5, 4, 6, 3), random(2, *taps, 3, 4)]

    def plain(net: Any, kernel: Any) -> Any:
        padded = net if padding else tf.pad(net, [(0, 0), *pads, (0, 0)])
        return tf.nn.conv3d(padded, kernel, (1,) * 5, padding or "VALID")

    assert_equal(
        values_and_gradients(lambda net, kernel: convolve(net, kernel, pads), arrays),
        values_and_gradients(plain, arrays),
    )


@pytest.mark.parametrize("filters", [3, 16, 17])
@pytest.mark.parametrize("stride, shape", [(1, (2, 4, 2, 6, 3)), (1, (1, 2, 3, 1, 4)), (2, (2, 4, 2, 6, 3))])
def test_a_layer_in_blocks(shape: Tuple[int, ...], stride: int, filters: int) -> None:
    arrays = [random(3, *shape), random(4, 3, 3, 3, shape[4], filters)]
    blocks, plain = (
        values_and_gradients(lambda net, kernel, form=form: form.convolve(net, kernel, stride), arrays)
        for form in (BlockConvolutions(), Convolutions())
    )
    assert_equal(blocks, plain)


@pytest.mark.parametrize("skipped", [2, 5])
def test_an_upsampled_layer_in_blocks(skipped: int) -> None:
    """With a skip connection that goes into the blocks, and one that does not."""
    arrays = [random(5, 2, 2, 3, 1, 4), random(6, 2, 4, 6, 2, skipped), random(7, 3, 3, 3, 4 + skipped, 5)]
    blocks, plain = (
        values_and_gradients(
            lambda half, skip, taps, form=form: form.convolve(form.upsampled(half, skip), taps, 1), arrays
        )
        for form in (BlockConvolutions(), Convolutions())
    )
    assert_equal(blocks, plain)


def test_blocks_and_back() -> None:
    volume = random(8, 2, 4, 6, 2, 3)
    with tf.Graph().as_default(), tf.Session() as session:
        blocks = to_blocks(tf.constant(volume))
        there, back = session.run([blocks, from_blocks(blocks)])
    np.testing.assert_array_equal(back, volume)
    expected = [volume[1, 2 + i, 4 + j, 0 + k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    np.testing.assert_array_equal(there[1, 1, 2, 0], np.concatenate(expected))


def training_nodes(settings: Any, backend: Any = None) -> List[Any]:
    with tf.Graph().as_default() as graph:
        build_training_graph(settings, placeholders(settings.spec, False), backend or Backend(settings))
        return list(graph.as_graph_def().node)


def test_in_blocks_no_slow_kernel_is_left(make_settings: Callable) -> None:
    """Nor is there a strided convolution, an upsampled volume or a kernel label."""
    nodes = training_nodes(make_settings())
    assert not [node.op for node in nodes if node.op.startswith("Conv3DBackprop")]
    assert not [node.name for node in nodes if node.attr["_kernel"].s]
    convolutions = [node for node in nodes if node.op == "Conv3D"]
    assert {tuple(node.attr["strides"].list.i) for node in convolutions} == {(1,) * 5} and len(convolutions) > 20


@pytest.mark.parametrize(
    "device, chosen, in_blocks",
    [
        ("cpu", "auto", True),
        ("cpu", "direct", False),
        ("gpu", "auto", False),
        ("gpu", "blocks", True),
        ("npu", "auto", False),
        ("npu", "direct", False),
    ],
)
def test_who_gets_which_form(make_settings: Callable, device: str, chosen: str, in_blocks: bool) -> None:
    assert (
        isinstance(Backend(make_settings(device=device, convolutions=chosen)).convolutions, BlockConvolutions)
        == in_blocks
    )


def test_a_form_that_was_asked_for_belongs_to_the_run(make_settings: Callable) -> None:
    """The order of sums decides the last bits; left to the device, it may change with the device."""
    prints = [
        fingerprint(make_settings(**changes), 5, 1, {})
        for changes in (
            {},
            {"device": "gpu"},
            {"convolutions": "direct"},
            {"convolutions": "direct", "device": "gpu"},
            {"convolutions": "blocks"},
        )
    ]
    assert prints[0] == prints[1] and prints[2] == prints[3] and prints[0] != prints[2] != prints[4] != prints[0]


@pytest.mark.parametrize("changes", [{"convolutions": "winograd"}, {"convolutions": "blocks", "device": "npu"}])
def test_impossible_forms_are_refused(make_settings: Callable, changes: dict) -> None:
    with pytest.raises(SpecError, match="convolutions"):
        make_settings(**changes)


def test_labels_and_blocks_stay_out_of_exported_graphs_and_of_an_npus(make_settings: Callable) -> None:
    """An NPU's backend gives no labels and the plain form; an exported graph is built without a backend."""
    from train.devices.npu import NpuBackend

    settings = make_settings(device="npu")
    backend = NpuBackend.__new__(NpuBackend)
    Backend.__init__(backend, settings)
    backend._npu = settings.npu
    for nodes in (training_nodes(settings, backend), list(build_inference_graph(settings.spec).as_graph_def().node)):
        assert not [
            node.name
            for node in nodes
            if node.attr["_kernel"].s or node.attr["_gradient_op_type"].s or node.op == "IdentityN"
        ]
        assert {tuple(node.attr["strides"].list.i)[1] for node in nodes if node.op == "Conv3D"} == {1, 2}
