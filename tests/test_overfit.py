"""From images to tracked masks: a small network overfits one video."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model
from networks import tiny_config, two_moving_squares

STEPS = 120


def test_a_video_can_be_overfitted(device: torch.device) -> None:
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=10, ENC_LAYERS=1, DEC_LAYERS=2, DROPOUT=0.0)
    cfg.MODEL.DEVICE = str(device)
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    cfg.MODEL.TIMM.NAME = "resnet10t"
    model = build_model(cfg).train()
    video = two_moving_squares(scale=2)
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
            (i for i, predicted in enumerate(result["pred_labels"]) if predicted == label),
            key=lambda i: result["pred_scores"][i],
        )
        assert result["pred_scores"][best] > 0.5
        mask = result["pred_masks"][best]
        iou = (mask & truth[label]).sum() / (mask | truth[label]).sum()
        assert iou > 0.75
