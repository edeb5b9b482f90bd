from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import torch
from networks import two_moving_squares

from seqformer.data.batch import Batch


def test_a_batch_arrives_with_all_its_tensors() -> None:
    clips = [two_moving_squares(), two_moving_squares(size=48) | {"file_names": ["a.jpg"], "none": []}]
    clips[1]["image"] = [image.to(torch.uint8).flip(2).transpose(1, 2) for image in clips[1]["image"]]
    clips[0]["empty"] = torch.zeros(0, 4)
    received = pickle.loads(ForkingPickler.dumps(Batch(clips)))
    assert isinstance(received, Batch)
    assert [set(clip) for clip in received] == [set(clip) for clip in clips]
    assert received[1]["file_names"] == ["a.jpg"]
    assert received[0]["empty"].shape == (0, 4)
    for sent, clip in zip(clips, received, strict=True):
        for a, b in zip(sent["image"], clip["image"], strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        for a, b in zip(sent["instances"], clip["instances"], strict=True):
            assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
            assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
            assert torch.equal(a.gt_ids, b.gt_ids)


def test_tensors_of_a_batch_share_one_memory() -> None:
    clip = pickle.loads(ForkingPickler.dumps(Batch([two_moving_squares()])))[0]
    storages = {image.untyped_storage().data_ptr() for image in clip["image"]}
    storages |= {frame.gt_masks.tensor.untyped_storage().data_ptr() for frame in clip["instances"]}
    assert len(storages) == 1
