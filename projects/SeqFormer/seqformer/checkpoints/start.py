"""Weights to start a training with other classes, or with more queries, from those of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["start_weights"]

_QUERIES = "detr.detr.query_embed.weight"
_CLASS_HEAD = "detr.detr.class_embed."
_NOISE = 0.1  # of added queries, relative to the standard deviation of the trained ones


def start_weights(
    state: Mapping[str, Tensor],
    old_names: Sequence[str],
    new_names: Sequence[str],
    num_queries: int,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Fits the weights of a trained model to other classes and to more queries.

    A class that the model knows, whatever the case of its name, keeps its row of the class heads. Other
    classes start from the mean of all rows: what makes a query an instance at all is kept. Added queries are
    copies of trained ones with a little noise.

    Args:
        state: tensors by their published names, in any floating-point type.
        old_names: class names of ``state`` by label.
        new_names: class names of the training by label.
        num_queries: Q, at least the number in ``state``.
        seed: of the noise.

    Returns:
        float32 tensors by name.
    """
    rows = {name.lower(): row for row, name in enumerate(old_names)}
    fitted = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    for name, tensor in fitted.items():
        if name.startswith(_CLASS_HEAD) and len(tensor) == len(old_names):
            mean = tensor.mean(dim=0)
            fitted[name] = torch.stack(
                [tensor[rows[new.lower()]] if new.lower() in rows else mean for new in new_names]
            )
    queries = fitted.get(_QUERIES)
    if queries is not None and len(queries) < num_queries:
        generator = torch.Generator().manual_seed(seed)
        added = num_queries - len(queries)
        copies = queries[torch.arange(added) % len(queries)]
        noise = torch.randn(copies.shape, generator=generator) * queries.std(dim=0)
        fitted[_QUERIES] = torch.cat([queries, copies + _NOISE * noise])
    return fitted
