"""DAVIS: one folder of PNGs per video; palette indices are object ids. YouTube-VOS adds categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder
from seqformer.formats.files import new_folder, read_json, write_json
from seqformer.formats.frames import list_pictures, subfolders
from seqformer.formats.labelled import LabelledVideo, paint_ids
from seqformer.formats.ytvis import Dataset, category_entries, parse_categories

__all__ = ["read_davis", "write_davis"]

_OBJECT = "object"  # the only category of a dataset without categories
_MAX_OBJECTS = 255


def read_davis(annotations: Path, frames: Path, meta: Path | None = None, void: int | None = None) -> Dataset:
    """Reads a dataset from PNGs of ids.

    Only frames that have a PNG are used: DAVIS annotates all frames, YouTube-VOS every fifth.

    Args:
        annotations: folder with one subfolder of PNGs per video; id 0 is background.
        frames: folder with a subfolder of the same name per video. Frames are named like the PNGs.
        meta: YouTube-VOS's meta.json, for categories; None for a single category "object". Category ids are
            taken from its "categories", which :func:`write_davis` adds; without it, they follow the order of
            names.
        void: id of pixels to ignore (255 in some datasets); None if there is none.

    Raises:
        InputError: if something is missing or inconsistent; the message names file, video and object.
    """
    names, objects = ({1: _OBJECT}, None) if meta is None else _read_meta(meta)
    builder = DatasetBuilder(frames, names)
    for folder in subfolders(annotations):
        pngs = list_pictures(folder)
        if not pngs:
            raise InputError(f"'{folder}': no PNGs")
        pictures = list_pictures(frames / folder.name)
        missing = [str(path) for stem, path in pngs.items() if stem not in pictures]
        if missing:
            raise InputError(f"'{missing[0]}' has no frame in '{frames / folder.name}'")
        video = builder.add_video([pictures[stem] for stem in pngs])
        for frame, path in enumerate(pngs.values()):
            ids = video.read_ids(path)
            present = set(np.unique(ids).tolist()) - {0, void}
            known = dict.fromkeys(present, 1) if objects is None else objects.get(folder.name, {})
            if not present <= known.keys():
                object_ = min(present - known.keys())
                raise InputError(f"'{path}': object {object_} has no category in '{meta}'")
            try:
                video.add_ids(frame, ids, {id_: known[id_] for id_ in present})
            except InputError as error:
                raise InputError(f"'{path}': object {error}") from None
    return builder.finish()


def _read_meta(path: Path) -> tuple[dict[int, str], dict[str, dict[int, int]]]:
    """Returns category names by id, and category ids by video and object."""
    content = read_json(path)
    try:
        objects = {
            name: {int(id_): str(entry["category"]) for id_, entry in video["objects"].items()}
            for name, video in content["videos"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not YouTube-VOS's meta.json: every object of a video needs a 'category'"
        ) from error
    used = sorted({name for video in objects.values() for name in video.values()})
    names = dict(enumerate(used, start=1))
    if "categories" in content:
        names = parse_categories(content, str(path))
    ids = {name: id_ for id_, name in names.items()}
    unknown = [name for name in used if name not in ids]
    if unknown:
        raise InputError(f"'{path}': '{unknown[0]}' is not among its 'categories'")
    return names, {
        video: {id_: ids[name] for id_, name in categories.items()} for video, categories in objects.items()
    }


def write_davis(videos: list[LabelledVideo], names: dict[int, str], output: Path) -> None:
    """Writes PNGs with DAVIS's palette, and a meta.json in YouTube-VOS format.

    Where instances overlap, the higher score is in front. Object ids start at 1 with the highest score.
    meta.json also has "categories" with ids, so that :func:`read_davis` can restore them.

    Args:
        videos: the videos and their results.
        names: category names by id.
        output: a new folder, for Annotations/ and meta.json.

    Raises:
        InputError: if a video has more than 255 instances, or the folder exists or cannot be written.
    """
    meta = {}
    with new_folder(output) as folder:
        for labelled in videos:
            count = len(labelled.instances)
            if count > _MAX_OBJECTS:
                raise InputError(
                    f"video {labelled.video.id}: {count} instances, but a PNG can hold {_MAX_OBJECTS}: "
                    "raise `score_threshold`"
                )
            target = folder / "Annotations" / labelled.folder
            target.mkdir(parents=True)
            for frame, stem in enumerate(labelled.stems):
                picture = Image.fromarray(paint_ids(labelled, frame, range(1, count + 1)).astype(np.uint8))
                picture.putpalette(_palette())
                picture.save(target / f"{stem}.png")
            objects = {
                str(number): {"category": names[instance.category], "score": instance.score}
                for number, instance in enumerate(labelled.instances, start=1)
            }
            meta[labelled.folder] = {"objects": objects}
        write_json(folder / "meta.json", {"categories": category_entries(names), "videos": meta})


def _palette() -> list[int]:
    """Returns PASCAL VOC's palette, which DAVIS uses: the bits of an id, spread over red, green and blue."""
    ids = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= (ids >> (3 * level + channel) & 1) << (7 - level)
    return colors.flatten().tolist()
