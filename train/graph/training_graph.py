# SPDX-License-Identifier: Apache-2.0
"""The training graph: network, warp, losses, Adam. Reads no files and runs no steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from train.devices.base import Backend
from train.graph import losses
from train.settings.run import TrainSettings
from vxm_convert.metrics.labels import label_set
from vxm_convert.network.integrate import velocity_to_displacement
from vxm_convert.network.tf1 import tf
from vxm_convert.network.unet import build_unet, build_velocity_posterior, make_variables
from vxm_convert.network.warp import warp_linear
from vxm_convert.synthetic.training_pairs import SCORED

_BACKGROUND = 0


@dataclass(frozen=True)
class TrainingGraph:
    """Nodes the loop feeds and fetches.

    `inputs` may be fed whatever produces them. `scalars`: loss, image (the similarity, unweighted), flow (the
    smoothness or the divergence, unweighted), dice (if trained on), displacement (mean length of a component, voxels).
    `images`: moved, flow.
    """

    graph: tf.Graph
    inputs: Dict[str, tf.Tensor]
    scalars: Dict[str, tf.Tensor]
    images: Dict[str, tf.Tensor]
    train_op: tf.Operation
    step: tf.Variable
    scale: Optional[tf.Tensor]


def build_training_graph(settings: TrainSettings, inputs: Dict[str, tf.Tensor], backend: Backend) -> TrainingGraph:
    """Network, losses and Adam's update around `inputs` (see `train.data.dataset`), in the default graph."""
    moving, fixed = inputs["moving"], inputs["fixed"]
    make_variables(settings.spec)
    if settings.spec.diffeomorphic:
        posterior = build_velocity_posterior(moving, fixed, settings.spec, backend.convolutions)
        with backend.full_precision():
            flow, loss, scalars = _diffeomorphic(settings, inputs, *posterior)
    else:
        flow = build_unet(moving, fixed, settings.spec, backend.convolutions)
        with backend.full_precision():
            loss, scalars = _displacement(settings, inputs, flow)
    with backend.full_precision():
        if "moving_seg" in inputs:
            overlap = _overlap if settings.data.synthetic is None else _full_overlap
            scalars["dice"] = overlap(inputs["moving_seg"], inputs["fixed_seg"], flow, settings)
            loss = loss + settings.loss.dice_weight * scalars["dice"]
        scalars = {"loss": loss, **scalars, "displacement": tf.reduce_mean(tf.abs(flow))}
        images = {"moved": warp_linear(moving, flow), "flow": flow}
    step = tf.train.get_or_create_global_step()
    rate = scalars["learning_rate"] = _learning_rate(settings, step)
    update, scale = _build_update(loss, step, backend, rate)
    return TrainingGraph(tf.get_default_graph(), inputs, scalars, images, update, step, scale)


def _displacement(
    settings: TrainSettings, inputs: Dict[str, tf.Tensor], flow: tf.Tensor
) -> Tuple[tf.Tensor, Dict[str, tf.Tensor]]:
    """Loss and its parts, of a flow that the network gives directly."""
    moving, fixed = _compared(inputs)
    image = losses.IMAGE_LOSSES[settings.loss.image](warp_linear(moving, flow), fixed)
    smoothness = losses.flow_gradient(flow, settings.loss.penalty)
    return image + settings.loss.smoothness * smoothness, {"image": image, "flow": smoothness}


def _diffeomorphic(
    settings: TrainSettings, inputs: Dict[str, tf.Tensor], mean: tf.Tensor, log_sigma: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor, Dict[str, tf.Tensor]]:
    """Flow, loss and its parts: a velocity drawn from the posterior, integrated; both ways with `bidirectional`.

    Dalca et al., MICCAI 2018; the noise is an input, so that a run can be repeated and resumed.
    """
    moving, fixed = _compared(inputs)
    velocity = mean + tf.exp(0.5 * log_sigma) * inputs["noise"]
    flow = velocity_to_displacement(velocity, settings.spec.integration_steps)
    image = losses.mean_squared_error(warp_linear(moving, flow), fixed)
    if settings.loss.bidirectional:
        inverse = velocity_to_displacement(-velocity, settings.spec.integration_steps)
        image = 0.5 * (image + losses.mean_squared_error(warp_linear(fixed, inverse), moving))
    divergence = losses.velocity_divergence(mean, log_sigma, settings.loss.prior_lambda)
    loss = image / settings.loss.image_sigma**2 + divergence
    return flow, loss, {"image": image, "flow": divergence}


def _compared(inputs: Dict[str, tf.Tensor]) -> Tuple[tf.Tensor, tf.Tensor]:
    """The images that the image loss compares: of synthetic pairs, those that share their contrast."""
    names = ("moving_plain", "fixed_plain") if "moving_plain" in inputs else ("moving", "fixed")
    return inputs[names[0]], inputs[names[1]]


def _full_overlap(moving_seg: tf.Tensor, fixed_seg: tf.Tensor, flow: tf.Tensor, settings: TrainSettings) -> tf.Tensor:
    """1 − soft Dice of the numbered labels of synthetic pairs, at full resolution."""
    moving, fixed = (tf.one_hot(tf.cast(seg, tf.int32) - 1, SCORED) for seg in (moving_seg, fixed_seg))
    return losses.label_overlap(warp_linear(moving, flow), fixed)


def _learning_rate(settings: TrainSettings, step: tf.Variable) -> tf.Tensor:
    rate = tf.constant(settings.learning_rate, tf.float32)
    if settings.lr_half_life is None:
        return rate
    return rate * tf.pow(0.5, tf.cast(step, tf.float32) / settings.lr_half_life)


def _overlap(moving_seg: tf.Tensor, fixed_seg: tf.Tensor, flow: tf.Tensor, settings: TrainSettings) -> tf.Tensor:
    """1 − soft Dice on every second voxel: full resolution would take a volume per label and corner."""
    labels = tf.constant([n for n in label_set(settings.loss.labels) if n != _BACKGROUND], tf.int32)
    moving, fixed = (tf.cast(tf.equal(seg[..., tf.newaxis], labels), tf.float32) for seg in (moving_seg, fixed_seg))
    # Voxel i of the coarse grid is voxel 2i of the full one, so displacements halve.
    return losses.label_overlap(warp_linear(moving, 0.5 * flow[:, ::2, ::2, ::2]), fixed)


def _build_update(
    loss: tf.Tensor, step: tf.Variable, backend: Backend, learning_rate: tf.Tensor
) -> Tuple[tf.Operation, Optional[tf.Tensor]]:
    """Adam's update operation and the scale of the loss, None where it is not scaled."""
    optimizer, scale = backend.scaled(backend.adam(learning_rate))
    with tf.get_default_graph()._kernel_label_map(backend.kernels):  # no public name in TensorFlow 1.15
        return optimizer.minimize(loss, global_step=step), scale
