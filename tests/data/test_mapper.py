"""Invariants of the clips that the model is trained on."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from PIL import Image

from seqformer import add_seqformer_config
from seqformer.data import ClipSampler, YTVISDatasetMapper, load_ytvis_json
from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.SAMPLING_FRAME_NUM = 4
    cfg.INPUT.MIN_SIZE_TRAIN = (36, 60)
    cfg.INPUT.MIN_SIZE_TEST = 36
    cfg.INPUT.RANDOM_FLIP = "flip_by_clip"
    return cfg


@pytest.fixture
def videos(toy: Any) -> list[dict[str, Any]]:
    return load_ytvis_json(toy.train, toy.frames)


def plain_mapper(num_frames: int = 8) -> YTVISDatasetMapper:
    """Returns all frames in order, without augmentation."""
    return YTVISDatasetMapper(
        T.AugmentationList([]), image_format="RGB", clip_sampler=ClipSampler(num_frames, 100)
    )


def test_clips_are_consistent(cfg: CfgNode, videos: list[dict[str, Any]]) -> None:
    cfg.INPUT.CROP.merge_from_list(["ENABLED", True, "TYPE", "relative_range", "SIZE", [0.5, 0.5]])
    cfg.INPUT.AUGMENTATIONS = ["brightness"]
    mapper = YTVISDatasetMapper(cfg)
    before = copy.deepcopy(videos)
    sizes = set()
    for _ in range(15):
        for video in videos:
            clip = mapper(video)
            assert clip["video_id"] == video["video_id"]
            assert (clip["height"], clip["width"], clip["length"]) == (48, 64, 4)
            positions = [video["file_names"].index(name) for name in clip["file_names"]]
            assert positions == sorted(set(positions))
            assert len(clip["image"]) == len(clip["instances"]) == 4
            size = clip["image"][0].shape
            sizes.add(tuple(size))
            first = clip["instances"][0]
            assert len(first) > 0
            ever_visible = torch.zeros(len(first), dtype=torch.bool)
            for image, instances in zip(clip["image"], clip["instances"], strict=True):
                assert image.shape == size and image.dtype == torch.uint8
                assert instances.image_size == tuple(size[1:])
                assert instances.gt_classes.equal(first.gt_classes)
                assert instances.gt_classes.dtype == instances.gt_ids.dtype == torch.int64
                masks = instances.gt_masks.tensor
                assert masks.dtype == torch.bool and masks.shape == (len(first), *size[1:])
                visible = masks.flatten(1).any(dim=1)
                ever_visible |= visible
                assert instances.gt_ids.tolist() == [n if seen else -1 for n, seen in enumerate(visible)]
                for mask, box, seen in zip(masks, instances.gt_boxes.tensor, visible, strict=True):
                    if seen:
                        rows, columns = np.nonzero(mask.numpy())
                        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                        assert box.tolist() == tight
                    else:
                        assert box.tolist() == [0, 0, 0, 0]
            assert ever_visible.all(), "an instance that no frame shows"
    assert len(sizes) > 2
    assert videos == before, "the dataset was changed"


def test_masks_and_classes_match_the_annotations(videos: list[dict[str, Any]]) -> None:
    for video in videos:
        clip = plain_mapper()(video)
        classes = {a["id"]: a["category_id"] for frame in video["annotations"] for a in frame}
        assert clip["instances"][0].gt_classes.tolist() == list(classes.values())
        for t, frame in enumerate(video["annotations"]):
            by_id = {a["id"]: a["segmentation"] for a in frame}
            for mask, id_ in zip(clip["instances"][t].gt_masks.tensor, classes, strict=True):
                expected = decode_mask(by_id[id_]) if id_ in by_id else np.zeros((48, 64))
                np.testing.assert_array_equal(mask, expected)


def test_flip_moves_frames_and_masks_together(videos: list[dict[str, Any]]) -> None:
    flip = T.AugmentationList([T.RandomFlip(prob=1.0)])
    flipped = YTVISDatasetMapper(flip, image_format="RGB", clip_sampler=ClipSampler(8, 100))(videos[0])
    clip = plain_mapper()(videos[0])
    for t in range(8):
        assert clip["image"][t].flip(-1).equal(flipped["image"][t])
        masks = [c["instances"][t].gt_masks.tensor for c in (clip, flipped)]
        assert masks[0].flip(-1).equal(masks[1])


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_channel_order(cfg: CfgNode, videos: list[dict[str, Any]], image_format: str) -> None:
    cfg.INPUT.merge_from_list(["FORMAT", image_format, "MIN_SIZE_TEST", 0])
    clip = YTVISDatasetMapper(cfg, is_train=False)(videos[0])
    expected = read_image(videos[0]["file_names"][3], image_format)
    np.testing.assert_array_equal(clip["image"][3], expected.transpose(2, 0, 1))


def test_test_videos_are_whole(cfg: CfgNode, videos: list[dict[str, Any]]) -> None:
    video = YTVISDatasetMapper(cfg, is_train=False)(videos[1])
    assert "instances" not in video
    assert (video["height"], video["width"], video["length"], video["video_id"]) == (48, 64, 8, 2)
    assert video["file_names"] == videos[1]["file_names"]
    assert [tuple(image.shape) for image in video["image"]] == [(3, 36, 48)] * 8


def test_crowds_are_dropped(videos: list[dict[str, Any]]) -> None:
    video = copy.deepcopy(videos[0])
    classes = {a["id"]: a["category_id"] for frame in video["annotations"] for a in frame}
    crowd = next(iter(classes))
    for frame in video["annotations"]:
        for annotation in frame:
            annotation["iscrowd"] = int(annotation["id"] == crowd)
    del classes[crowd]
    assert plain_mapper()(video)["instances"][0].gt_classes.tolist() == list(classes.values())


def test_clips_without_instances_are_sampled_again(videos: list[dict[str, Any]]) -> None:
    video = copy.deepcopy(videos[0])
    video["annotations"][:4] = [[]] * 4
    mapper = plain_mapper(num_frames=1)
    for _ in range(20):
        clip = mapper(video)
        assert video["file_names"].index(clip["file_names"][0]) >= 4
    assert mapper(video | {"annotations": [[]] * 8}) is None


def test_clips_share_memory_between_processes(cfg: CfgNode, videos: list[dict[str, Any]]) -> None:
    clip = YTVISDatasetMapper(cfg)(videos[0])
    assert len({image.untyped_storage().data_ptr() for image in clip["image"]}) == 1
    masks = [instances.gt_masks.tensor for instances in clip["instances"]]
    assert len({mask.untyped_storage().data_ptr() for mask in masks}) == 1
    assert pickle.loads(pickle.dumps(clip))["image"][1].equal(clip["image"][1])


@pytest.mark.parametrize("damage", ["truncated", "text", "gone", "size"])
def test_bad_frames_are_named(
    cfg: CfgNode, videos: list[dict[str, Any]], tmp_path: Path, damage: str
) -> None:
    video = copy.deepcopy(videos[0])
    path = tmp_path / "frame.jpg"
    if damage == "truncated":
        path.write_bytes(Path(video["file_names"][2]).read_bytes()[:400])
    elif damage == "text":
        path.write_text("not an image")
    elif damage == "size":
        Image.new("RGB", (32, 24)).save(path)
    else:
        shutil.rmtree(tmp_path)
    video["file_names"][2] = str(path)
    with pytest.raises(InputError, match="video 1: frame '.*frame.jpg'") as error:
        YTVISDatasetMapper(cfg, is_train=False)(video)
    assert "\n" not in str(error.value)
