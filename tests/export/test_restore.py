# SPDX-License-Identifier: Apache-2.0
"""Weights by name from checkpoints and Keras files, and one message for whatever does not fit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.checkpoints import SPEC, write_checkpoint, write_h5
from tests.support.reference import random_weights
from vxm_convert.errors import CheckpointError
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import expected_variables
from vxm_convert.network.restore import load_weights
from vxm_convert.weights.files import find_checkpoint

pytest.importorskip("tensorflow")
h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.tf


def load(path: Path, variant: str = "vm2", indexing: str = "ij"):
    return load_weights(find_checkpoint(path), ModelSpec(variant, SPEC.volume_shape), indexing)


def assert_same(found, expected):
    assert list(found) == list(expected_variables(SPEC))
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value)


def test_checkpoint_gives_the_network_without_the_optimiser(checkpoint, weights):
    assert_same(load(checkpoint), weights)


def test_h5_layers_count_by_number_not_by_name(tmp_path, weights):
    """From 95 on, conv3d_99 sorts behind conv3d_100 as text."""
    assert_same(load(write_h5(tmp_path / "a.h5", weights, first_number=95)), weights)


def test_h5_without_a_group_for_weights(tmp_path, weights):
    with h5py.File(str(tmp_path / "flat.h5"), "w") as handle:
        for name, value in weights.items():
            handle.create_dataset(name, data=value)
    assert_same(load(tmp_path / "flat.h5"), weights)


def test_xy_networks_get_their_flow_channels_swapped(tmp_path, weights):
    found = load(write_h5(tmp_path / "xy.h5", weights), indexing="xy")
    np.testing.assert_array_equal(found["flow/kernel"], weights["flow/kernel"][..., [1, 0, 2]])
    np.testing.assert_array_equal(found["flow/bias"], weights["flow/bias"][[1, 0, 2]])
    np.testing.assert_array_equal(found["conv3d_3/kernel"], weights["conv3d_3/kernel"])


def test_xy_is_refused_for_a_checkpoint(checkpoint):
    with pytest.raises(CheckpointError, match="Keras .h5"):
        load(checkpoint, indexing="xy")


@pytest.mark.parametrize("variant", ["vm1", "vm2double"])
def test_a_wrong_variant_names_the_right_one(checkpoint, variant):
    with pytest.raises(CheckpointError, match=f"--variant {variant}: variable .* these weights fit --variant vm2"):
        load(checkpoint, variant)


def test_missing_extra_and_misshapen_variables_are_named(tmp_path, weights):
    values = dict(weights)
    del values["conv3d_4/bias"]
    values["head/kernel"] = np.zeros((3, 3), np.float32)
    values["conv3d_5/bias"] = np.zeros(7, np.float32)
    with pytest.raises(CheckpointError) as caught:
        load(write_checkpoint(tmp_path / "odd", values))
    message = str(caught.value)
    assert "conv3d_5/bias has shape 7, expected 32" in message
    assert "conv3d_4/bias 32 is missing" in message
    assert "head/kernel 3x3 is not part of it" in message
    assert "fit none of" in message


def test_another_slot_is_not_taken_for_the_optimiser(tmp_path, weights):
    """`Adam` is a slot only below a variable; a layer of that name is a foreign network."""
    with pytest.raises(CheckpointError, match="Adam/kernel"):
        load(write_checkpoint(tmp_path / "odd", {**weights, "Adam/kernel": np.zeros(3, np.float32)}))


def test_integers_in_place_of_weights_are_refused(tmp_path, weights):
    values = {**weights, "conv3d/bias": np.zeros(16, np.int32)}
    with pytest.raises(CheckpointError, match="conv3d/bias has dtype int32"):
        load(write_checkpoint(tmp_path / "ints", values))


def test_nan_weights_are_refused(tmp_path, weights):
    values = {**weights, "conv3d_2/bias": np.full(32, np.nan, np.float32)}
    with pytest.raises(CheckpointError, match="conv3d_2/bias contains NaN"):
        load(write_checkpoint(tmp_path / "nan", values))


def test_damaged_checkpoints_give_a_message(tmp_path, weights):
    prefix = write_checkpoint(tmp_path / "cut", weights)
    data = tmp_path / "cut.data-00000-of-00001"
    said = (
        f"^{re.escape(str(prefix))}: the checkpoint is damaged: its index or its data cannot be decoded; copy it again$"
    )
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=said):
        load(prefix)
    (tmp_path / "cut.index").write_bytes(b"no index at all")
    with pytest.raises(CheckpointError, match=said):
        load(prefix)


def test_a_diffeomorphic_network_is_called_so(tmp_path, weights):
    extra = {"log_sigma/kernel": weights["flow/kernel"], "log_sigma/bias": weights["flow/bias"]}
    with pytest.raises(CheckpointError, match="diffeomorphic.*fit none of"):
        load(write_h5(tmp_path / "odd.h5", {**weights, **extra}))
    diffeomorphic = random_weights(ModelSpec("miccai2018", SPEC.volume_shape))
    whole = write_h5(tmp_path / "miccai.h5", diffeomorphic)
    with pytest.raises(CheckpointError, match="diffeomorphic.*these weights fit --variant miccai2018"):
        load(whole)
    for indexing, order in (("ij", [0, 1, 2]), ("xy", [1, 0, 2])):
        read = load(whole, "miccai2018", indexing)
        assert list(read) == list(diffeomorphic)
        for head in ("flow/kernel", "flow/bias", "log_sigma/kernel", "log_sigma/bias"):
            np.testing.assert_array_equal(read[head], diffeomorphic[head][..., order])


def test_h5_files_are_not_trusted(tmp_path, weights):
    not_hdf5 = tmp_path / "text.h5"
    not_hdf5.write_text("no weights")
    with pytest.raises(CheckpointError, match="HDF5"):
        load(not_hdf5)

    huge = write_h5(tmp_path / "huge.h5", weights)
    with h5py.File(str(huge), "a") as handle:
        layer = handle["model_weights/conv3d_67/conv3d_67"]
        del layer["kernel:0"]
        layer.create_dataset("kernel:0", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(16, 16))
    with pytest.raises(CheckpointError, match="at most"):
        load(huge)

    linked = write_h5(tmp_path / "linked.h5", weights)
    with h5py.File(str(linked), "a") as handle:
        layer = handle["model_weights/conv3d_67/conv3d_67"]
        del layer["bias:0"]
        layer["bias:0"] = h5py.ExternalLink("/etc/hostname", "/x")
    with pytest.raises(CheckpointError, match="is a link"):
        load(linked)

    text = write_h5(tmp_path / "strings.h5", weights)
    with h5py.File(str(text), "a") as handle:
        layer = handle["model_weights/conv3d_67/conv3d_67"]
        del layer["bias:0"]
        layer.create_dataset("bias:0", data=np.array([b"a"] * 16))
    with pytest.raises(CheckpointError, match="expected floating numbers"):
        load(text)

    cut = tmp_path / "cut.h5"
    whole = write_h5(tmp_path / "whole.h5", weights).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="HDF5"):
        load(cut)


def test_vm1_is_told_from_vm2_in_h5(tmp_path):
    path = write_h5(tmp_path / "vm1.h5", random_weights(ModelSpec("vm1", SPEC.volume_shape)), first_number=0)
    assert len(load(path, "vm1")) == 22
    with pytest.raises(CheckpointError, match="these weights fit --variant vm1"):
        load(path, "vm2")


@pytest.mark.real_data
def test_the_checkpoint_of_a_real_910_loads(shared_data):
    folder = shared_data / "weights" / "vm2_mse_ascend910"
    found = load(folder / "model")
    assert_same(load(folder), found)
    assert 0.01 < np.abs(found["flow/kernel"]).max() < 1


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name,variant", [("cvpr2018_vm2_cc", "vm2"), ("cvpr2018_vm2_l2", "vm2"), ("cvpr2018_vm1_l2", "vm1")]
)
def test_published_h5_files_load(shared_data, name, variant):
    assert load(shared_data / "weights" / "published_h5" / (name + ".h5"), variant)["flow/bias"].shape == (3,)


@pytest.mark.real_data
def test_the_published_diffeomorphic_file_is_refused(shared_data):
    with pytest.raises(CheckpointError, match="diffeomorphic"):
        load(shared_data / "weights" / "published_h5" / "miccai2018_10_02_init1.h5")


def test_a_checkpoint_inside_a_scope_loads_by_order(tmp_path, weights):
    scoped = {f"net/{name}": value for name, value in weights.items()}
    assert_same(load(write_checkpoint(tmp_path / "model", scoped)), weights)


def test_a_numbered_flow_layer_loads_by_order(tmp_path, weights):
    last = len(weights) // 2 - 1
    named = {name.replace("flow/", f"conv3d_{last}/"): value for name, value in weights.items()}
    assert_same(load(write_checkpoint(tmp_path / "model", named)), weights)
    with h5py.File(str(tmp_path / "nested.h5"), "w") as handle:
        for name, value in named.items():
            handle.create_dataset(f"model_weights/model_1/{name}:0", data=value)
    assert_same(load(tmp_path / "nested.h5"), weights)


def test_two_networks_in_one_h5_are_refused(tmp_path, weights):
    with h5py.File(str(tmp_path / "two.h5"), "w") as handle:
        for model in ("model_1", "model_2"):
            for name, value in weights.items():
                handle.create_dataset(f"model_weights/{model}/{name}:0", data=value)
    with pytest.raises(CheckpointError, match="twice; expected the weights of one network"):
        load(tmp_path / "two.h5")


@pytest.mark.parametrize(
    "name, head, says",
    [
        ("model.pt", b"PK\x03\x04", "is a PyTorch file"),
        ("model.pth", b"\x80\x02", "is a PyTorch file"),
        ("weights", b"\x89HDF\r\n\x1a\n", "give it the suffix .h5"),
        ("weights.npz", b"PK\x03\x04", "is a zip archive"),
        ("vxm.om", b"IMOD", "is an offline model"),
        ("vxm.onnx", b"\x08\x07", "is an ONNX model"),
        ("frozen.pb", b"\n\x10", "is a frozen graph"),
        ("model.tar.gz", b"\x1f\x8b", "is a compressed archive"),
        ("notes.txt", b"hello", "is a file of another kind"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, head, says):
    (tmp_path / name).write_bytes(head + b"\0" * 200)
    with pytest.raises(CheckpointError, match=f"{says}.*pass a TensorFlow 1 checkpoint"):
        find_checkpoint(tmp_path / name)


def test_a_saved_model_is_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(CheckpointError, match="is a SavedModel folder.*variables/variables"):
        find_checkpoint(tmp_path)


def test_a_network_of_tensorflow_2_is_named(tmp_path):
    with h5py.File(str(tmp_path / "vxm.h5"), "w") as handle:
        handle.attrs["model_config"] = b'{"class_name": "VxmDense", "config": {}}'
        handle.create_dataset("model_weights/vxm_dense_unet_enc_conv_0_0/kernel:0", data=np.zeros((3, 3, 3, 2, 16)))
    with pytest.raises(CheckpointError, match="TensorFlow 2 code .class VxmDense.*cannot be converted"):
        load(tmp_path / "vxm.h5")
