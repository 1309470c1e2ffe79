# SPDX-License-Identifier: Apache-2.0
"""The input pipeline: samples by number, decoded in parallel, batched and prefetched in order of their numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, List, Tuple

import numpy as np

from train.data.loading import Loader
from train.data.pairs import PairOrder
from vxm_convert.model.spec import ModelSpec
from vxm_convert.network.tf1 import tf

_MAX_READERS = 4
_PREFETCH = 2


def input_shapes(
    spec: ModelSpec, with_labels: bool, synthetic: bool = False
) -> Dict[str, Tuple[Tuple[int, ...], tf.DType]]:
    """Name → shape and dtype of what a training step reads; labels are thinned out but for synthetic pairs."""
    half = spec.velocity_shape[:4]
    shapes = {"moving": (spec.image_shape, tf.float32), "fixed": (spec.image_shape, tf.float32)}
    if synthetic:
        shapes.update({name: (spec.image_shape, tf.float32) for name in ("moving_plain", "fixed_plain")})
        shapes.update({name: (spec.image_shape[:4], tf.uint8) for name in ("moving_seg", "fixed_seg")})
    elif with_labels:
        shapes.update({"moving_seg": (half, tf.int32), "fixed_seg": (half, tf.int32)})
    if spec.diffeomorphic:
        shapes["noise"] = (spec.velocity_shape, tf.float32)
    return shapes


def placeholders(spec: ModelSpec, with_labels: bool, synthetic: bool = False) -> Dict[str, tf.Tensor]:
    """Inputs for feed_dict."""
    return {
        name: tf.placeholder(dtype, shape, name=name)
        for name, (shape, dtype) in input_shapes(spec, with_labels, synthetic).items()
    }


@dataclass(frozen=True)
class Pipeline:
    """`inputs`: tensors of the next batch. `start(session, step)` makes the next batch that of `step`."""

    inputs: Dict[str, tf.Tensor]
    first_sample: tf.Tensor
    initializer: tf.Operation
    batch: int

    def start(self, session: tf.Session, step: int) -> None:
        session.run(self.initializer, {self.first_sample: step * self.batch})


def build_pipeline(order: PairOrder, loader: Loader, last_step: int, rank: int = 0, ranks: int = 1) -> Pipeline:
    """The pipeline in the default graph; it ends before `last_step` and makes batch number `rank` of every `ranks`."""
    batch = loader.spec.batch
    shapes = input_shapes(loader.spec, loader.with_labels, loader.synthetic)

    def load(sample: np.ndarray) -> List[np.ndarray]:
        step, place = divmod(int(sample), batch)
        number = (step * ranks + rank) * batch + place
        arrays = loader.arrays(order.pair(number), number)
        return [arrays[name] for name in shapes]

    def read(sample: tf.Tensor) -> Dict[str, tf.Tensor]:
        values = tf.numpy_function(load, [sample], [dtype for _, dtype in shapes.values()])
        for value, (shape, _) in zip(values, shapes.values()):
            value.set_shape(shape[1:])
        return dict(zip(shapes, values))

    # map keeps the order of the samples for any number of readers.
    first = tf.placeholder(tf.int64, (), name="first_sample")
    data = tf.data.Dataset.range(first, last_step * batch)
    # Plain Python as it is: without this, TensorFlow translates `read` first, which takes a second.
    read = tf.autograph.experimental.do_not_convert(read)
    data = data.map(read, num_parallel_calls=min(_MAX_READERS, os.cpu_count() or 1))
    data = data.batch(batch, drop_remainder=True).prefetch(_PREFETCH)
    iterator = tf.data.make_initializable_iterator(data)
    return Pipeline(iterator.get_next(), first, iterator.initializer, batch)
