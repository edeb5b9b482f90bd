"""From images to tracked masks: a small network learns one video by heart."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from networks import tiny_config

SIZE, FRAMES, STEPS = 64, 3, 250


def two_moving_squares() -> dict:
    """A bright square moves right, a dark one down; the dark one is gone in the last frame."""
    images, instances = [], []
    for t in range(FRAMES):
        masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
        masks[0, 8:28, 4 + 10 * t : 24 + 10 * t] = True
        if t < FRAMES - 1:
            masks[1, 30 + 6 * t : 52 + 6 * t, 36:58] = True
        image = torch.full((3, SIZE, SIZE), 120.0)
        image[:, masks[0]] = 250.0
        image[:, masks[1]] = 0.0
        frame = Instances((SIZE, SIZE))
        frame.gt_masks = BitMasks(masks)
        frame.gt_boxes = frame.gt_masks.get_bounding_boxes()
        frame.gt_classes = torch.tensor([0, 1])
        frame.gt_ids = torch.tensor([0, 1 if masks[1].any() else -1])
        images.append(image)
        instances.append(frame)
    return {"image": images, "instances": instances, "height": SIZE, "width": SIZE}


def test_a_video_is_learnt_by_heart() -> None:
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=10, ENC_LAYERS=1, DEC_LAYERS=2, DROPOUT=0.0)
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    cfg.MODEL.TIMM.NAME = "resnet10t"
    model = build_model(cfg).train()
    video = two_moving_squares()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    first = None
    for _ in range(STEPS):
        loss = sum(model([video]).values())
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert loss.item() < 0.3 * first

    result = model.eval()([video])
    truth = torch.stack([frame.gt_masks.tensor for frame in video["instances"]], dim=1)
    for label in (0, 1):
        best = max(
            (i for i, found in enumerate(result["pred_labels"]) if found == label),
            key=lambda i: result["pred_scores"][i],
        )
        assert result["pred_scores"][best] > 0.5
        mask = result["pred_masks"][best]
        iou = (mask & truth[label]).sum() / (mask | truth[label]).sum()
        assert iou > 0.75
