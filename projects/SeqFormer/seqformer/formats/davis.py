"""DAVIS: a folder of PNGs a video, whose palette indices are objects; YouTube-VOS adds their categories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder
from seqformer.formats.files import read_json, write_json
from seqformer.formats.frames import list_pictures, read_ids, subfolders
from seqformer.formats.video_results import FoundInstance, FoundVideo, paint

__all__ = ["read_davis", "write_davis"]

_OBJECT = "object"  # the category of everything, where a dataset has none
_MOST_OBJECTS = 255


def read_davis(annotations: Path, frames: Path, meta: Path | None, void: int | None) -> dict[str, Any]:
    """YouTube-VIS JSON from PNGs of ids.

    A video's frames are those with a PNG: YouTube-VOS annotates every fifth, DAVIS all.

    Args:
        annotations: folder with a folder of PNGs a video; 0 is background.
        frames: folder with a folder of the same name a video; pictures have the PNGs' names.
        meta: YouTube-VOS's meta.json, for categories; None for one category, "object".
        void: the id of pixels that belong to nothing (255 in some datasets); None if there is none.

    Raises:
        InputError: names file, video and object if something is missing or inconsistent.
    """
    categories = _read_meta(meta) if meta is not None else None
    names = sorted({name for video in categories.values() for name in video.values()}) if categories else []
    builder = DatasetBuilder(frames, dict(enumerate(names or [_OBJECT], start=1)))
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
            ids = read_ids(path)
            if ids.shape != (video.height, video.width):
                size = f"{ids.shape[1]}x{ids.shape[0]}"
                raise InputError(f"'{path}' is {size} pixels, its frame {video.width}x{video.height}")
            found = set(np.unique(ids).tolist()) - {0, void}
            if categories is None:
                known = dict.fromkeys(found, _OBJECT)
            else:
                known = categories.get(folder.name, {})
                if not found <= known.keys():
                    raise InputError(
                        f"'{path}': object {min(found - known.keys())} has no category in '{meta}'"
                    )
            try:
                video.add_ids(frame, ids, {id_: known[id_] for id_ in found})
            except InputError as error:
                raise InputError(f"'{path}': object {error}") from None
    return builder.to_json()


def _read_meta(path: Path) -> dict[str, dict[int, str]]:
    """Categories by video and object."""
    content = read_json(path)
    try:
        return {
            name: {int(id_): str(entry["category"]) for id_, entry in video["objects"].items()}
            for name, video in content["videos"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not YouTube-VOS's meta.json, with a 'category' for every one of a video's 'objects'"
        ) from error


def write_davis(videos: list[FoundVideo], folder: Path) -> None:
    """PNGs with DAVIS's palette and a meta.json in YouTube-VOS's form.

    Where instances overlap, the one with the higher score is seen. Ids follow the scores, from 1.

    Raises:
        InputError: if a video has more than 255 instances.
    """
    meta = {}
    for video in videos:
        if len(video.instances) > _MOST_OBJECTS:
            raise InputError(
                f"video {video.id}: {len(video.instances)} instances, a PNG holds {_MOST_OBJECTS}: raise "
                "--score-threshold"
            )
        numbers = {id(instance): n for n, instance in enumerate(video.instances, start=1)}
        target = folder / "Annotations" / video.folder
        target.mkdir(parents=True, exist_ok=True)
        for frame, stem in enumerate(video.stems):
            picture = Image.fromarray(paint(video, frame, numbers).astype(np.uint8))
            picture.putpalette(_palette())
            picture.save(target / f"{stem}.png")
        meta[video.folder] = {"objects": {str(n): _meta(i) for n, i in enumerate(video.instances, start=1)}}
    write_json(folder / "meta.json", {"videos": meta})


def _meta(instance: FoundInstance) -> dict[str, Any]:
    return {"category": instance.category, "score": instance.score}


def _palette() -> list[int]:
    """PASCAL VOC's colours, which DAVIS shares: the bits of an id, spread over red, green and blue."""
    ids = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= (ids >> (3 * level + channel) & 1) << (7 - level)
    return colors.flatten().tolist()
