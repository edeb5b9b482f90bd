"""YouTube-VIS-format JSON as Detectron2 dataset dicts, and the registration of such datasets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from seqformer.data.rle import to_rle
from seqformer.errors import InputError

__all__ = ["BUILTIN_DATASETS", "load_ytvis_json", "read_json", "register_ytvis_instances", "resolve_datasets"]

# Name -> (JSON, folder of frames), below $DETECTRON2_DATASETS (default: "datasets").
BUILTIN_DATASETS = {
    "ytvis_2019_train": ("ytvis_2019/train.json", "ytvis_2019/train/JPEGImages"),
    "ytvis_2019_val": ("ytvis_2019/valid.json", "ytvis_2019/valid/JPEGImages"),
    "ytvis_2019_test": ("ytvis_2019/test.json", "ytvis_2019/test/JPEGImages"),
    "ytvis_2021_train": ("ytvis_2021/train.json", "ytvis_2021/train/JPEGImages"),
    "ytvis_2021_val": ("ytvis_2021/valid.json", "ytvis_2021/valid/JPEGImages"),
    "ovis_train": ("ovis/annotations_train.json", "ovis/train"),
    "ovis_val": ("ovis/annotations_valid.json", "ovis/valid"),
}

_PREFIX = "ytvis:"


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: if it is missing, unreadable or no JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise InputError(f"no file '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON: {error}") from error


def load_ytvis_json(
    json_file: str | Path, image_root: str | Path, dataset_name: str | None = None
) -> list[dict[str, Any]]:
    """Reads a dataset in YouTube-VIS format.

    Everything is checked here, so that training does not stop at a bad annotation hours later. Masks are
    kept as compressed RLEs and decoded by the mapper, for sampled frames only.

    Args:
        json_file: the annotations. Without "annotations" (test sets) the videos come without them.
        image_root: the folder that file names in the JSON are relative to.
        dataset_name: where to set "thing_classes" and "thing_dataset_id_to_contiguous_id" in Detectron2's
            MetadataCatalog; class names are those of the JSON, in the order of their ids.

    Returns:
        a dict a video: file_names (T paths), height, width (pixels), length (T), video_id and, if the JSON
        has annotations, annotations: T lists, each with a dict for every instance seen in that frame: id,
        category_id (0-based, contiguous), segmentation (compressed RLE), iscrowd, and bbox (xywh, pixels,
        as in the JSON) if given.

    Raises:
        InputError: names file, video and annotation if something is missing or inconsistent.
    """
    data = read_json(json_file)
    categories, classes = _categories(data, json_file)
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(
            thing_classes=classes, thing_dataset_id_to_contiguous_id=categories
        )
    annotated = "annotations" in data and data["annotations"] is not None
    videos: dict[int, dict[str, Any]] = {}
    for video in _list(data, "videos", json_file):
        record = _video(video, json_file, Path(image_root))
        if annotated:
            record["annotations"] = [[] for _ in record["file_names"]]
        if record["video_id"] in videos:
            raise InputError(f"{json_file}: two videos have the id {record['video_id']}")
        videos[record["video_id"]] = record
    if not videos:
        raise InputError(f"{json_file}: no videos")
    identities: set[int] = set()
    for index, annotation in enumerate(_list(data, "annotations", json_file) if annotated else []):
        identity = annotation.setdefault("id", index)
        if not isinstance(identity, int) or identity in identities:
            raise InputError(
                f"{json_file}: annotation ids must be integers, each used once; {identity} is not"
            )
        identities.add(identity)
        _add_annotation(annotation, videos, categories, json_file)
    return list(videos.values())


def _list(data: dict[str, Any], key: str, json_file: str | Path) -> list[Any]:
    entries = data.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{json_file}: '{key}' must be a list of objects; is it YouTube-VIS format?")
    return entries


def _categories(data: Any, json_file: str | Path) -> tuple[dict[int, int], list[str]]:
    """Ids in the dataset -> contiguous ids, and class names."""
    if not isinstance(data, dict):
        raise InputError(f"{json_file}: not an object with 'videos' and 'categories'")
    names: dict[int, str] = {}
    for category in _list(data, "categories", json_file):
        if not isinstance(category.get("id"), int) or not isinstance(category.get("name"), str):
            raise InputError(f"{json_file}: a category needs an integer 'id' and a 'name'")
        if category["id"] in names:
            raise InputError(f"{json_file}: two categories have the id {category['id']}")
        names[category["id"]] = category["name"]
    if not names:
        raise InputError(f"{json_file}: no categories")
    return {id_: index for index, id_ in enumerate(sorted(names))}, [names[id_] for id_ in sorted(names)]


def _video(video: dict[str, Any], json_file: str | Path, image_root: Path) -> dict[str, Any]:
    where = f"{json_file}: video {video.get('id', '(without id)')}"
    for key in ("id", "height", "width"):
        if not isinstance(video.get(key), int) or (key != "id" and video[key] < 1):
            raise InputError(f"{where}: '{key}' must be a positive integer")
    names = video.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: 'file_names' must be a list of at least one name")
    if video.get("length", len(names)) != len(names):
        raise InputError(f"{where}: 'length' is {video['length']}, but there are {len(names)} file_names")
    missing = _missing_files(image_root, names)
    if missing:
        raise InputError(
            f"{where}: {len(missing)} of {len(names)} frames are missing, the first is '{missing[0]}'"
        )
    return {
        "file_names": [str(image_root / name) for name in names],
        "height": video["height"],
        "width": video["width"],
        "length": len(names),
        "video_id": video["id"],
    }


def _missing_files(root: Path, names: list[str]) -> list[Path]:
    # A listing a folder: much faster than a look at every file, above all on network disks.
    present: dict[Path, set[str]] = {}
    paths = [root / name for name in names]
    for folder in {path.parent for path in paths}:
        try:
            present[folder] = set(os.listdir(folder))
        except OSError:
            present[folder] = set()
    return [path for path in paths if path.name not in present[path.parent]]


def _add_annotation(
    annotation: dict[str, Any],
    videos: dict[int, dict[str, Any]],
    categories: dict[int, int],
    json_file: str | Path,
) -> None:
    identity, video_id = annotation["id"], annotation.get("video_id")
    where = f"{json_file}: video {video_id}, annotation {identity}"
    video = videos.get(video_id) if isinstance(video_id, int) else None
    if video is None:
        raise InputError(f"{where}: there is no video with that id")
    category = annotation.get("category_id")
    if not isinstance(category, int) or category not in categories:
        raise InputError(f"{where}: category_id {category} is not among the categories {_span(categories)}")
    segmentations = annotation.get("segmentations")
    boxes = annotation.get("bboxes") or [None] * video["length"]
    for key, entries in (("segmentations", segmentations), ("bboxes", boxes)):
        if not isinstance(entries, list) or len(entries) != video["length"]:
            found = f"{len(entries)} entries" if isinstance(entries, list) else "no list"
            raise InputError(f"{where}: '{key}' has {found}, the video {video['length']} frames")
    for frame, (segmentation, box) in enumerate(zip(segmentations, boxes, strict=True)):
        try:
            rle = to_rle(segmentation, video["height"], video["width"])
        except InputError as error:
            raise InputError(f"{where}, frame {frame}: {error}") from None
        if rle is None:
            continue
        instance = {
            "id": identity,
            "category_id": categories[category],
            "segmentation": rle,
            "iscrowd": int(annotation.get("iscrowd") or 0),
        }
        if box is not None:
            instance["bbox"] = box
        video["annotations"][frame].append(instance)


def _span(categories: dict[int, int]) -> str:
    return f"{min(categories)} to {max(categories)}" if len(categories) > 1 else f"({min(categories)})"


def register_ytvis_instances(
    name: str, metadata: dict[str, Any], json_file: str | Path, image_root: str | Path
) -> None:
    """Registers a dataset in YouTube-VIS format with Detectron2; it is read when first used.

    Args:
        name: the name to use in DATASETS.TRAIN and DATASETS.TEST.
        metadata: more metadata; may be empty.
        json_file: the annotations.
        image_root: the folder that file names in the JSON are relative to.
    """
    DatasetCatalog.register(name, lambda: load_ytvis_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="ytvis", **metadata
    )


def resolve_datasets(names: Iterable[str]) -> tuple[str, ...]:
    """Registers the datasets that are not yet.

    Args:
        names: registered names, those of :data:`BUILTIN_DATASETS`, or ``ytvis:JSON:FRAMES_FOLDER`` for a
            dataset that needs no registration.

    Returns:
        names under which they are registered. ``ytvis:pedestrians/val.json:...`` is "pedestrians_val".

    Raises:
        InputError: if there is no such dataset.
    """
    return tuple(_resolve(name) for name in names)


def _resolve(name: str) -> str:
    if name in DatasetCatalog.list():
        return name
    if name.startswith(_PREFIX):
        json_file, _, image_root = name.removeprefix(_PREFIX).partition(":")
        if not json_file or not image_root:
            raise InputError(f"dataset '{name}': write ytvis:JSON_FILE:FOLDER_OF_FRAMES")
        return _register_files(Path(json_file), Path(image_root))
    if name in BUILTIN_DATASETS:
        root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
        json_file, image_root = (root / path for path in BUILTIN_DATASETS[name])
        if not json_file.is_file():
            raise InputError(
                f"dataset '{name}': no file '{json_file}'; set DETECTRON2_DATASETS to the folder of datasets"
            )
        register_ytvis_instances(name, {}, json_file, image_root)
        return name
    raise InputError(
        f"no dataset '{name}'; known are {', '.join(BUILTIN_DATASETS)}, and ytvis:JSON_FILE:FOLDER_OF_FRAMES"
    )


def _register_files(json_file: Path, image_root: Path) -> str:
    if not json_file.is_file():
        raise InputError(f"no file '{json_file}'")
    if not image_root.is_dir():
        raise InputError(f"no folder '{image_root}'")
    json_file, image_root = json_file.resolve(), image_root.resolve()
    stem = f"{json_file.parent.name}_{json_file.stem}"
    name, copies = stem, 1
    while name in DatasetCatalog.list():
        known = MetadataCatalog.get(name)
        if known.get("json_file") == str(json_file) and known.get("image_root") == str(image_root):
            return name
        copies += 1
        name = f"{stem}_{copies}"
    register_ytvis_instances(name, {}, json_file, image_root)
    return name
