"""Dataset names: the published datasets in $DETECTRON2_DATASETS, and names that contain paths."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from seqformer.data.categories import CATEGORIES
from seqformer.data.coco import load_coco_as_ytvis
from seqformer.data.ytvis import load_ytvis_json, register_ytvis_instances
from seqformer.errors import InputError

__all__ = [
    "BUILTIN_DATASETS",
    "BuiltinDataset",
    "builtin_classes",
    "register_builtin_datasets",
    "resolve_datasets",
]

_PREFIX = "ytvis:"


@dataclass(frozen=True)
class BuiltinDataset:
    """Location of a published dataset in $DETECTRON2_DATASETS (default: "datasets").

    Attributes:
        folder: folder of the dataset.
        json_files: common names of its annotation file; the first that exists is read.
        frames: common folders to which file names in the JSON are relative; the first that exists is used.
        categories: key of :data:`seqformer.data.categories.CATEGORIES`; "" if only the JSON lists them.
        is_coco: whether it contains images in COCO format instead of videos.
    """

    folder: str
    json_files: tuple[str, ...]
    frames: tuple[str, ...]
    categories: str
    is_coco: bool = False

    def locate(self, name: str) -> tuple[Path, Path]:
        """Returns the JSON file and the folder of frames.

        Raises:
            InputError: if there is no JSON file; the message lists the names that were tried.
        """
        root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), self.folder)
        for json_file in (root / file for file in self.json_files):
            if json_file.is_file():
                folders = [root / folder for folder in self.frames]
                return json_file, next((folder for folder in folders if folder.is_dir()), folders[0])
        raise InputError(
            f"dataset '{name}': no file '{root / self.json_files[0]}'"
            + "".join(f" or '{file}'" for file in self.json_files[1:])
            + "; set DETECTRON2_DATASETS to the folder that contains your datasets"
        )


def _videos(folder: str, split: str, categories: str) -> BuiltinDataset:
    longer = {"val": "valid"}.get(split, split)
    json_files: tuple[str, ...] = (f"{longer}.json", f"annotations/instances_{split}_sub.json")
    frames = dict.fromkeys((f"{longer}/JPEGImages", f"{split}/JPEGImages"))
    if folder == "ovis":
        json_files = (f"annotations_{longer}.json", *json_files)
        frames |= dict.fromkeys((longer, split))
    return BuiltinDataset(folder, json_files, tuple(frames), categories)


def _coco(split: str, categories: str) -> BuiltinDataset:
    json_file = f"annotations/instances_{split}2017.json"
    return BuiltinDataset("coco", (json_file,), (f"{split}2017",), categories, is_coco=True)


def _photo_vis(folder: str, split: str) -> BuiltinDataset:
    return BuiltinDataset(folder, (f"{split}.json",), (f"{split}/JPEGImages",), "")


BUILTIN_DATASETS = {
    **{
        f"ytvis_{year}_{split}": _videos(f"ytvis_{year}", split, f"ytvis_{year}")
        for year in (2019, 2021)
        for split in ("train", "val", "test")
    },
    # 2022 has the classes and the training set of 2021.
    "ytvis_2022_val": _videos("ytvis_2022", "val", "ytvis_2021"),
    "ovis_train": _videos("ovis", "train", "ovis"),
    "ovis_val": _videos("ovis", "val", "ovis"),
    # Written by tools/make_photo_vis.py, with frames of 192 x 320 and of 288 x 480 pixels.
    **{
        f"{folder}_{split}": _photo_vis(folder, split)
        for folder in ("photo_vis", "photo_vis_288")
        for split in ("train", "val", "hard")
    },
    **{
        f"coco2{target.replace('_', '')}_{split}": _coco(split, target)
        for target in CATEGORIES
        for split in ("train", "val")
    },
}


def register_builtin_datasets() -> None:
    """Registers :data:`BUILTIN_DATASETS` with Detectron2, except for names that exist already.

    Files and $DETECTRON2_DATASETS are read only when a dataset is used.
    """
    for name, builtin in BUILTIN_DATASETS.items():
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(_load_builtin, name))
            MetadataCatalog.get(name).set(evaluator_type="coco" if builtin.is_coco else "ytvis")


def _load_builtin(name: str) -> list[dict[str, Any]]:
    builtin = BUILTIN_DATASETS[name]
    json_file, image_root = builtin.locate(name)
    metadata = MetadataCatalog.get(name)
    metadata.set(json_file=str(json_file), image_root=str(image_root))
    if builtin.is_coco:
        return load_coco_as_ytvis(json_file, image_root, builtin.categories, name)
    videos = load_ytvis_json(json_file, image_root, name)
    colors = {category.name: list(category.color) for category in CATEGORIES.get(builtin.categories, ())}
    if set(metadata.thing_classes) <= colors.keys():
        metadata.set(thing_colors=[colors[class_] for class_ in metadata.thing_classes])
    return videos


def builtin_classes(name: str) -> dict[int, str]:
    """Returns class names by id of a published dataset; {} if it is another, or only its JSON has them."""
    builtin = BUILTIN_DATASETS.get(name)
    categories = CATEGORIES.get(builtin.categories, ()) if builtin else ()
    return {category.id: category.name for category in categories}


def resolve_datasets(names: Iterable[str]) -> tuple[str, ...]:
    """Registers datasets that are given by paths, and checks that the files of the built-in ones exist.

    Args:
        names: registered names, names of :data:`BUILTIN_DATASETS`, or ``ytvis:JSON:FRAMES_FOLDER`` for a
            dataset that is not registered. The paths may contain colons.

    Returns:
        the registered names. ``ytvis:pedestrians/val.json:...`` becomes "pedestrians_val".

    Raises:
        InputError: if there is no such dataset.
    """
    return tuple(_resolve(name) for name in names)


def _resolve(name: str) -> str:
    if name in BUILTIN_DATASETS:
        register_builtin_datasets()
        if MetadataCatalog.get(name).get("json_file") is None:  # neither read yet nor registered by others
            BUILTIN_DATASETS[name].locate(name)
        return name
    if name in DatasetCatalog.list():
        json_file = MetadataCatalog.get(name).get("json_file")  # also set for Detectron2's own COCO datasets
        if json_file is not None and "://" not in json_file and not Path(json_file).is_file():
            raise InputError(f"dataset '{name}': no file '{json_file}'; is DETECTRON2_DATASETS set?")
        return name
    if name.startswith(_PREFIX):
        return _register_files(*_split(name))
    raise InputError(
        f"no dataset '{name}'; available: {', '.join(BUILTIN_DATASETS)}, or ytvis:JSON_FILE:FOLDER_OF_FRAMES"
    )


def _split(name: str) -> tuple[Path, Path]:
    """Returns the JSON file and the folder of ``ytvis:JSON:FRAMES_FOLDER``; paths may contain colons."""
    parts = name.removeprefix(_PREFIX).split(":")
    splits = [(":".join(parts[:n]), ":".join(parts[n:])) for n in range(1, len(parts))]
    candidates = [(Path(file), Path(folder)) for file, folder in splits if file and folder]
    if not candidates:
        raise InputError(f"dataset '{name}': write ytvis:JSON_FILE:FOLDER_OF_FRAMES")
    # If both do not exist together, the message is about the one that is more probably meant.
    likely = [
        [(file, folder) for file, folder in candidates if file.is_file() and folder.is_dir()],
        [(file, folder) for file, folder in candidates if file.is_file()],
        [(file, folder) for file, folder in candidates if file.suffix.lower() == ".json"],
        candidates,
    ]
    if len(likely[0]) > 1:
        raise InputError(
            f"dataset '{name}' can be read in {len(likely[0])} ways: rename the file or the folder"
        )
    return next(found[0] for found in likely if found)


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
