from __future__ import annotations

import torch

from seqformer.inference.postprocess import InferenceOptions, output_masks, scored_classes, select_queries

PROBABILITIES = torch.tensor([[0.9, 0.2], [0.01, 0.02], [0.3, 0.8], [0.6, 0.7]])


def test_queries_are_kept_by_their_best_class() -> None:
    options = InferenceOptions(num_instances=3)
    assert select_queries(PROBABILITIES, options).tolist() == [0, 2, 3]
    assert len(select_queries(PROBABILITIES, InferenceOptions())) == 4


def test_every_class_above_the_threshold_is_a_result() -> None:
    instances = {7: torch.tensor([0.9, 0.2, 0.05]), 8: torch.tensor([0.01, 0.5, 0.04])}
    many = scored_classes(instances, InferenceOptions(threshold=0.1))
    assert [(i, label) for i, label, _ in many] == [(7, 0), (7, 1), (8, 1)]
    best = scored_classes(instances, InferenceOptions(threshold=0.1, multi_class=False))
    assert [(i, label) for i, label, _ in best] == [(7, 0), (8, 1)]


def test_original_protocol_takes_the_best_pairs() -> None:
    options = InferenceOptions(top_pairs=True, num_instances=3)
    chosen = select_queries(PROBABILITIES, options)
    assert sorted(chosen.tolist()) == [0, 2, 3]
    results = scored_classes(dict(enumerate(PROBABILITIES[chosen])), options)
    assert [(int(chosen[i]), label) for i, label, _ in results] == [(0, 0), (2, 1), (3, 1)]


def test_masks_at_the_output_size() -> None:
    logits = torch.full((1, 1, 8, 8), -3.0)
    logits[..., 2:4, 1:3] = 3.0  # pixels 8 to 16 down, 4 to 12 across, of a 32x32 padded frame
    mask = output_masks(logits, (28, 20), (56, 40))
    assert mask.shape == (1, 1, 56, 40)
    rows, columns = mask[0, 0].any(1).nonzero().flatten(), mask[0, 0].any(0).nonzero().flatten()
    assert (rows.min(), rows.max() + 1) == (16, 32)
    assert (columns.min(), columns.max() + 1) == (8, 24)
