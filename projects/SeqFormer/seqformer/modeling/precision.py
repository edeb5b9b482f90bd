"""Reduced precision of the network at inference."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import nn

from seqformer.errors import InputError
from seqformer.modeling.network import SeqFormerNetwork

__all__ = ["PRECISIONS", "check_precision", "reduce_precision"]

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str) -> None:
    """Raises an InputError unless it is one of :data:`PRECISIONS`."""
    if precision not in PRECISIONS:
        raise InputError(f"`precision` must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def _check_device(precision: str, device: torch.device) -> None:
    """Checks that a device computes in a precision, and not more slowly than in fp32.

    Raises:
        InputError: if not; the message says why.
    """
    on_cpu = device.type == "cpu"
    if precision == "bf16" and on_cpu:
        if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
            raise InputError(
                "`precision` bf16 needs a processor with AVX512_BF16 or AMX, which this one is not: others "
                "are slower than in fp32"
            )
    elif precision == "fp16" and on_cpu:
        raise InputError("`precision` fp16 needs a GPU: processors are slower than in fp32")
    elif precision == "int8" and not on_cpu:
        raise InputError(f"`precision` int8 is for processors, not for device '{device}'")


def reduce_precision(network: SeqFormerNetwork, precision: str) -> None:
    """Makes a network with its final weights compute in a precision, in place.

    It can then neither be trained nor saved. Class heads, dynamic convolutions, sums of residuals and all
    coordinates stay in float32.

    * bf16 and fp16: convolutions, linear layers and attention of the backbone, encoder, decoder and mask
      features, by autocast.
    * int8: linear layers of the encoder and the decoder. Weights and activations of a layer have one scale
      each; that of activations is computed from their range in each call.

    Args:
        network: the network.
        precision: one of :data:`PRECISIONS`; "fp32" changes nothing.

    Raises:
        InputError: if the network's device does not compute in this precision, or is slower than in fp32.
    """
    check_precision(precision)
    _check_device(precision, network.device)
    if precision in _DTYPES:
        network.autocast_dtype = _DTYPES[precision]
        for module in _reduced(network):
            if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
                module.to(network.autocast_dtype)  # now, instead of in every call
    elif precision == "int8":
        transformer = network.detr.transformer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao moves to another package
            for layers in (transformer.encoder.layers, transformer.decoder.layers):
                torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, torch.qint8, inplace=True)


def _reduced(network: SeqFormerNetwork) -> Iterator[nn.Module]:
    detr = network.detr
    layers = (detr.transformer.encoder.layers, detr.transformer.decoder.layers)
    for part in (detr.backbone, detr.input_proj, *layers, network.mask_head):
        yield from part.modules()
