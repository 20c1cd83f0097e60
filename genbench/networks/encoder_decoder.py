"""Encoders that map images or points to vectors, and decoders that map vectors back; convolutional or fully
connected."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import nn

from genbench.networks.conv import down_net, up_net
from genbench.networks.mlp import mlp

Network = Literal["conv", "mlp"]


def encoder(
    network: Network,
    shape: Sequence[int],
    outputs: int,
    width: int,
    hidden: Sequence[int],
    flatten: nn.Module | None = None,
) -> nn.Sequential:
    """[B, *shape] -> [B, outputs].

    Args:
        shape: (C, H, W) with H = W a power of two from 16 to 256 for conv; any shape for mlp
        width: Channels of the convolutional layers nearest the image
        hidden: Widths of the hidden layers of the fully connected net
        flatten: First layer of the fully connected net, [B, *shape] -> [B, N]; `nn.Flatten` by default
    """
    if network == "conv":
        return down_net(shape[0], shape[-1], width, outputs)
    return nn.Sequential(flatten or nn.Flatten(), mlp([prod(shape), *hidden, outputs]))


def decoder(
    network: Network,
    inputs: int,
    shape: Sequence[int],
    width: int,
    hidden: Sequence[int],
    output: nn.Module | None = None,
) -> nn.Sequential:
    """[B, inputs] -> [B, *shape]. The arguments are the same as for `encoder`; `hidden` is in the encoder's order.

    Args:
        output: Activation of the last layer; none by default
    """
    if network == "conv":
        return up_net(inputs, shape[0], shape[-1], width, output)
    layers = [mlp([inputs, *hidden[::-1], prod(shape)]), output, nn.Unflatten(1, tuple(shape))]
    return nn.Sequential(*(layer for layer in layers if layer is not None))
