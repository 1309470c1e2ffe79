# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of the network: layers, variables, graph nodes. Pure Python: needs no TensorFlow.

The variable names are those of checkpoints trained with the Keras-style layers of the published training code
(``conv3d``, ``conv3d_1``, …, ``flow``), including the Ascend 910 checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

from vxm_convert.model.spec import ModelSpec

KERNEL_SIDE = 3
FLOW_CHANNELS = 3
FLOW_LAYER = "flow"
#: second head of the diffeomorphic variant: the logarithm of the velocity's variance (the published name is sigma)
LOG_SIGMA_LAYER = "log_sigma"
HEADS = (FLOW_LAYER, LOG_SIGMA_LAYER)

MOVING_NODE = "moving"
FIXED_NODE = "fixed"
MOVED_NODE = "moved"
#: Not "flow": that scope belongs to the variables flow/kernel and flow/bias.
FLOW_NODE = "flow_field"
#: of diffeomorphic variants: the velocity of the displacement, so that its negative can be integrated
VELOCITY_NODE = "velocity"


@dataclass(frozen=True)
class ConvLayer:
    """One 3×3×3 convolution: its scope, channels and stride."""

    name: str
    channels_in: int
    channels_out: int
    stride: int = 1

    @property
    def kernel_shape(self) -> Tuple[int, int, int, int, int]:
        """(3, 3, 3, channels_in, channels_out), TensorFlow's DHWIO."""
        return (KERNEL_SIDE, KERNEL_SIDE, KERNEL_SIDE, self.channels_in, self.channels_out)


def conv_name(number: int) -> str:
    """``conv3d``, ``conv3d_1``, …: Keras numbers layers of one kind in order of creation; the first one has no number."""
    return "conv3d" if number == 0 else f"conv3d_{number}"


def conv_layers(spec: ModelSpec) -> Tuple[ConvLayer, ...]:
    """Every convolution of the U-Net in order of creation, the flow layer last, or before the log_sigma layer, if there
    is one.

    The channels that enter a decoder layer are those of the layer below plus those of the skip connection; the
    fifth decoder layer runs at half resolution without one, the sixth takes the two input images as its skip.
    """
    encoder, decoder = spec.encoder_filters, spec.decoder_filters
    skips = (0, encoder[2], encoder[1], encoder[0], 0, 2) + (0,) * (len(decoder) - 6)
    layers: List[ConvLayer] = []
    channels = 2
    for filters in encoder:
        layers.append(ConvLayer(conv_name(len(layers)), channels, filters, stride=2))
        channels = filters
    for filters, skip in zip(decoder, skips):
        layers.append(ConvLayer(conv_name(len(layers)), channels + skip, filters))
        channels = filters
    layers += [ConvLayer(head, channels, FLOW_CHANNELS) for head in (HEADS if spec.diffeomorphic else HEADS[:1])]
    return tuple(layers)


def expected_variables(spec: ModelSpec) -> Dict[str, Tuple[int, ...]]:
    """Variable name → shape for a trained network, in order of creation; inference does not read log_sigma."""
    shapes: Dict[str, Tuple[int, ...]] = {}
    for layer in conv_layers(spec):
        shapes[layer.name + "/kernel"] = layer.kernel_shape
        shapes[layer.name + "/bias"] = (layer.channels_out,)
    return shapes
