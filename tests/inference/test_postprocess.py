from __future__ import annotations

import torch
from networks import tiny_model

from seqformer.inference.options import InferenceOptions
from seqformer.inference.postprocess import (
    output_masks,
    scored_classes,
    select_queries,
    without_duplicates,
)

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
    options = InferenceOptions(protocol="pairs", num_instances=3)
    chosen = select_queries(PROBABILITIES, options)
    assert chosen.tolist() == [0, 2, 3]
    results = scored_classes(dict(enumerate(PROBABILITIES[chosen])), options)
    assert [(int(chosen[i]), label) for i, label, _ in results] == [(0, 0), (2, 1), (3, 1)]


def test_queries_of_the_best_pairs_come_best_first() -> None:
    """Figures show the first few, so they must not be sorted by index."""
    probabilities = torch.tensor([[0.1, 0.5], [0.9, 0.7], [0.0, 0.2], [0.6, 0.8]])
    chosen = select_queries(probabilities, InferenceOptions(protocol="pairs", num_instances=5))
    assert chosen.tolist() == [1, 3, 0]
    assert select_queries(probabilities, InferenceOptions(num_instances=3)).tolist() == [1, 3, 0]


def test_masks_at_the_output_size(device: torch.device) -> None:
    logits = torch.full((1, 1, 8, 8), -3.0, device=device)
    logits[..., 2:4, 1:3] = 3.0  # pixels 8 to 16 down, 4 to 12 across, of a 32x32 padded frame
    mask = output_masks(logits, (28, 20), (56, 40))
    assert mask.shape == (1, 1, 56, 40)
    rows, columns = mask[0, 0].any(1).nonzero().flatten(), mask[0, 0].any(0).nonzero().flatten()
    assert (rows.min(), rows.max() + 1) == (16, 32)
    assert (columns.min(), columns.max() + 1) == (8, 24)


def test_most_probable_of_duplicates_is_kept() -> None:
    masks = torch.full((4, 2, 10, 10), -5.0)
    masks[0, :, :5] = 5.0
    masks[1, :, :6] = 5.0  # IoU 5/6 with the first in both frames
    masks[2, 0, :5] = 5.0  # the same in one frame of two: IoU 1/2
    masks[3, :, 6:] = 5.0
    probabilities = torch.tensor([[0.1, 0.2], [0.3, 0.1], [0.9, 0.0], [0.1, 0.1]])
    assert without_duplicates(probabilities, masks, 0.6, 4).tolist() == [1, 2, 3]
    assert without_duplicates(probabilities, masks, 0.4, 4).tolist() == [2, 3]
    assert without_duplicates(probabilities, masks, 0.9, 4).tolist() == [0, 1, 2, 3]
    assert without_duplicates(probabilities, masks, 0.6, 2).tolist() == [1, 2]


def test_next_best_queries_replace_duplicates() -> None:
    probabilities = torch.arange(30.0, 0, -1)[:, None] / 30
    assert select_queries(probabilities, InferenceOptions()).tolist() == list(range(10))
    options = InferenceOptions(duplicate_iou=0.5)
    assert select_queries(probabilities, options).tolist() == list(range(20))


def test_duplicates_of_a_clip_are_dropped(device: torch.device) -> None:
    """All queries are equal, so all predict the same object."""
    found = []
    for most in (1.0, 0.5):
        model = tiny_model(DUPLICATE_IOU=most, APPLY_CLS_THRES=0.0, CLIP_MATCHING=True, CLIP_LENGTH=2)
        model.to(device)
        with torch.no_grad():
            queries = model.network.detr.query_embed.weight
            queries.copy_(queries[:1].clone())
            model.network.controller.layers[-1].bias[-1] = 50  # everything is foreground
        found.append(len(model([{"image": [torch.rand(3, 40, 60) * 255] * 4}])["pred_scores"]) // 7)
    assert found == [10, 1]
