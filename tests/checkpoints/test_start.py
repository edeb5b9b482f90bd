"""Weights for other classes and more queries."""

from __future__ import annotations

import torch

from seqformer.checkpoints import start_weights

HEAD, QUERIES = "detr.detr.class_embed.0.weight", "detr.detr.query_embed.weight"


def state() -> dict[str, torch.Tensor]:
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float16)
    return {
        HEAD: rows,
        "detr.detr.class_embed.0.bias": rows[:, 0],
        QUERIES: torch.randn(4, 6),
        "steps": torch.tensor(3),
    }


def test_known_classes_keep_their_rows_and_others_start_from_the_mean() -> None:
    fitted = start_weights(state(), ["person", "dog"], ["fish", "Dog", "cat"], 4)
    assert fitted[HEAD].tolist() == [[2.0, 4.0], [3.0, 6.0], [2.0, 4.0]]
    assert fitted["detr.detr.class_embed.0.bias"].tolist() == [2.0, 3.0, 2.0]
    assert fitted[HEAD].dtype == torch.float32 and fitted["steps"] == 3


def test_added_queries_are_close_to_trained_ones_but_not_the_same() -> None:
    trained = state()
    queries = start_weights(trained, ["person", "dog"], ["dog"], 7, seed=1)[QUERIES]
    assert torch.equal(queries[:4], trained[QUERIES])
    difference = queries[4:] - trained[QUERIES][:3]
    assert 0 < difference.abs().max() < trained[QUERIES].std()
    assert torch.equal(queries, start_weights(trained, ["person", "dog"], ["dog"], 7, seed=1)[QUERIES])
