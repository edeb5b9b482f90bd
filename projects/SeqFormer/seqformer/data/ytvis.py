"""Datasets in YouTube-VIS format: reading them as Detectron2 dataset dicts, and registration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from seqformer.formats.ytvis import Annotation, read_ytvis
from seqformer.formats.ytvis import allow_outside as outside_allowed

__all__ = ["load_ytvis_json", "register_ytvis_instances"]


def load_ytvis_json(
    json_file: str | Path, image_root: str | Path, dataset_name: str | None = None
) -> list[dict[str, Any]]:
    """Reads a dataset in YouTube-VIS format.

    All annotations are checked, so that training does not stop at a bad one hours later. The first problem is
    raised; ``seqformer check`` lists all. Masks stay compressed RLEs; the mapper decodes those of sampled
    frames.

    Args:
        json_file: the annotation file. It may lack "annotations", as for test sets.
        image_root: the folder to which file names in the JSON are relative.
        dataset_name: entry of Detectron2's MetadataCatalog in which to set "thing_classes" and
            "thing_dataset_id_to_contiguous_id". Class names are those of the JSON, in order of their ids.

    Returns:
        a dict for each video: file_names (T paths), height, width (pixels), length (T), video_id and, if the
        JSON has annotations, annotations: T lists with a dict for every visible instance, of id, category_id
        (0-based, contiguous), segmentation (compressed RLE), iscrowd, and bbox (xywh, pixels, as in the JSON)
        if given.

    Raises:
        InputError: if something is missing or inconsistent; the message names file, video and annotation.
    """
    dataset = read_ytvis(json_file, image_root=Path(image_root))
    contiguous = {id_: index for index, id_ in enumerate(dataset.names)}
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(
            thing_classes=list(dataset.names.values()), thing_dataset_id_to_contiguous_id=contiguous
        )
    records: dict[int, dict[str, Any]] = {}
    for video in dataset.videos.values():
        records[video.id] = {
            "file_names": [str(Path(image_root, name)) for name in video.names],
            "height": video.height,
            "width": video.width,
            "length": video.length,
            "video_id": video.id,
        }
        if dataset.annotations is not None:
            records[video.id]["annotations"] = [[] for _ in video.names]
    for annotation in dataset.annotations or ():
        _add_annotation(annotation, contiguous, records[annotation.video.id]["annotations"])
    return list(records.values())


def _add_annotation(
    annotation: Annotation, contiguous: dict[int, int], frames: list[list[dict[str, Any]]]
) -> None:
    boxes = annotation.boxes or [None] * len(frames)
    for frame, mask, box in zip(frames, annotation.masks, boxes, strict=True):
        if mask is None:
            continue
        instance = {
            "id": annotation.id,
            "category_id": contiguous[annotation.category],
            "segmentation": mask,
            "iscrowd": int(annotation.crowd),
        }
        if box is not None:
            instance["bbox"] = box
        frame.append(instance)


def register_ytvis_instances(
    name: str,
    metadata: dict[str, Any],
    json_file: str | Path,
    image_root: str | Path,
    *,
    allow_outside: bool = False,
) -> None:
    """Registers a dataset in YouTube-VIS format with Detectron2. It is read when first used.

    Args:
        name: the name to use in DATASETS.TRAIN and DATASETS.TEST.
        metadata: additional metadata; may be empty.
        json_file: the annotation file.
        image_root: the folder to which file names in the JSON are relative.
        allow_outside: let the JSON name frames outside this folder.
    """

    def read() -> list[dict[str, Any]]:
        with outside_allowed(allow_outside):
            return load_ytvis_json(json_file, image_root, name)

    DatasetCatalog.register(name, read)
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="ytvis", **metadata
    )
