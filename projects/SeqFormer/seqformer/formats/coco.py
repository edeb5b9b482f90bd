"""COCO: results by frame, for annotation tools that read images."""

from __future__ import annotations

from pathlib import Path

from pycocotools import mask as mask_api

from seqformer.formats.files import write_json
from seqformer.formats.video_results import FoundVideo

__all__ = ["write_coco"]


def write_coco(videos: list[FoundVideo], categories: dict[int, str], path: Path) -> None:
    """A COCO annotation file whose images are the frames of all videos.

    Annotations also have the score and a track_id, the same for an instance in all frames and unique in the
    file; images have video_id and frame_id, counted from 0. Instances may overlap.
    """
    images, annotations = [], []
    track_id = 0
    for video in videos:
        first = len(images) + 1
        for frame, name in enumerate(video.names):
            size = {"height": video.height, "width": video.width}
            place = {"video_id": video.id, "frame_id": frame}
            images.append({"id": first + frame, "file_name": name} | size | place)
        for instance in video.instances:
            track_id += 1
            for frame, mask in enumerate(instance.masks):
                if mask is None:
                    continue
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": first + frame,
                        "category_id": instance.category_id,
                        "track_id": track_id,
                        "score": instance.score,
                        "iscrowd": 0,
                        "segmentation": mask,
                        "bbox": mask_api.toBbox(mask).tolist(),
                        "area": int(mask_api.area(mask)),
                    }
                )
    named = [{"id": id_, "name": name} for id_, name in categories.items()]
    write_json(path, {"images": images, "categories": named, "annotations": annotations})
