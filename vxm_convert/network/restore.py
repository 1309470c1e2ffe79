# SPDX-License-Identifier: Apache-2.0
"""Weights by variable name, from TensorFlow checkpoints and Keras files. Never from a ``.meta``: graphs from an NPU
contain ops that plain TensorFlow does not have, and a graph in a file is code.
"""

from __future__ import annotations

import logging
from typing import Dict, Tuple

import numpy as np

from vxm_convert.errors import CheckpointError
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import expected_variables
from vxm_convert.weights.files import CheckpointFiles
from vxm_convert.weights.fit import check_fit, is_training_state
from vxm_convert.weights.keras_h5 import INDEXINGS, open_h5, swap_xy
from vxm_convert.weights.naming import stored_names

_LOG = logging.getLogger(__name__)
_FLOATS = ("float16", "float32", "float64")


def load_weights(files: CheckpointFiles, spec: ModelSpec, h5_indexing: str = "ij") -> Dict[str, np.ndarray]:
    """Read the weights of `spec`'s network.

    Parameters
    ----------
    files : CheckpointFiles — from `vxm_convert.weights.files.find_checkpoint`.
    spec : ModelSpec — the network they must fit.
    h5_indexing : str — ``ij``, or ``xy`` for Keras models trained with 'xy' indexing (flow channels 0 and 1 are
        swapped).

    Returns
    -------
    dict — variable name → float32 array, exactly the variables of the network, in order of creation.

    Raises
    ------
    CheckpointError
        For missing or extra variables or other shapes, for NaN or Inf, and for unreadable files.
    """
    if h5_indexing not in INDEXINGS:
        raise CheckpointError(f"h5 indexing: got {h5_indexing!r}, expected one of {', '.join(INDEXINGS)}")
    if files.kind != "h5" and h5_indexing == "xy":
        raise CheckpointError(
            f"{files.path}: --h5-indexing xy is for Keras .h5 files, this is a TensorFlow checkpoint; omit it"
        )
    weights = _from_h5(files, spec) if files.kind == "h5" else _from_tensorflow(files, spec)
    bad = [name for name, value in weights.items() if not np.isfinite(value).all()]
    if bad:
        raise CheckpointError(
            f"{files.path}: {', '.join(bad[:4])} contains NaN or Inf; the training diverged, take an earlier checkpoint"
        )
    return swap_xy(weights) if h5_indexing == "xy" else weights


def _from_h5(files: CheckpointFiles, spec: ModelSpec) -> Dict[str, np.ndarray]:
    with open_h5(files.path) as datasets:
        names = _names({name: tuple(d.shape) for name, d in datasets.items()}, spec, files)
        return {name: np.asarray(datasets[stored][()], np.float32) for name, stored in names.items()}


def _from_tensorflow(files: CheckpointFiles, spec: ModelSpec) -> Dict[str, np.ndarray]:
    from vxm_convert.network.tf1 import tf

    try:
        reader = tf.train.load_checkpoint(str(files.path))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        dtypes = {name: dtype.name for name, dtype in reader.get_variable_to_dtype_map().items()}
        ignored = sorted(name for name in shapes if is_training_state(name))
        if ignored:
            _LOG.debug("%s: ignoring %d variables of the training: %s", files.path, len(ignored), ", ".join(ignored))
        network = {name: shape for name, shape in shapes.items() if name not in set(ignored)}
        names = _names(network, spec, files)
        _check_dtypes({name: dtypes[name] for name in names.values()}, files)
        return {name: np.asarray(reader.get_tensor(stored), np.float32) for name, stored in names.items()}
    except (tf.errors.OpError, ValueError, RuntimeError, UnicodeDecodeError) as exc:
        _LOG.debug("%s: TensorFlow says: %s", files.path, exc)
        raise CheckpointError(f"{files.path}: {_why_unreadable(exc)}") from exc


def _why_unreadable(exc: Exception) -> str:
    """What TensorFlow's exception means for the user; its own text goes to the debug log."""
    from vxm_convert.network.tf1 import tf

    if isinstance(exc, tf.errors.PermissionDeniedError):
        return "its files may not be read; change their permissions"
    if isinstance(exc, tf.errors.ResourceExhaustedError):
        return "its variables do not fit into memory, or too many files are open; free some, and try again"
    return "the checkpoint is damaged: its index or its data cannot be decoded; copy it again"


def _names(found: Dict[str, Tuple[int, ...]], spec: ModelSpec, files: CheckpointFiles) -> Dict[str, str]:
    """The network's variables → their names in the file; raises CheckpointError if they do not fit."""
    names = stored_names(found, spec, str(files.path))
    usual = {stored: name for name, stored in names.items()}
    check_fit({usual.get(name, name): shape for name, shape in found.items()}, spec, str(files.path))
    return {name: names[name] for name in expected_variables(spec)}


def _check_dtypes(dtypes: Dict[str, str], files: CheckpointFiles) -> None:
    for name, dtype in dtypes.items():
        if dtype not in _FLOATS:
            raise CheckpointError(
                f"{files.path}: variable {name} has dtype {dtype}, expected one of {', '.join(_FLOATS)}"
            )
