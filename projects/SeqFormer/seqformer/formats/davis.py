"""DAVIS: one folder of PNGs per video; palette indices are object ids. YouTube-VOS adds categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder
from seqformer.formats.files import PICTURE_SUFFIXES, new_folder
from seqformer.formats.frames import folders_with, list_pictures
from seqformer.formats.labelled import LabelledVideo, paint_ids
from seqformer.formats.meta import Meta, MetaObject, read_meta, write_meta
from seqformer.formats.ytvis import Dataset

__all__ = ["read_davis", "write_davis"]

_OBJECT = "object"  # the only category of a dataset without categories
_MAX_OBJECTS = 255


def read_davis(annotations: Path, frames: Path, meta: Path | None = None, void: int | None = None) -> Dataset:
    """Reads a dataset from PNGs of ids.

    Only frames that have a PNG are used: DAVIS annotates all frames, YouTube-VOS every fifth.

    Args:
        annotations: folder with one subfolder of PNGs per video; id 0 is background.
        frames: folder with a subfolder of the same name per video. Frames are named like the PNGs.
        meta: YouTube-VOS's meta.json, for categories; None for a single category "object". That of
            :func:`write_davis` also has the ids of categories, videos and instances, and the names of frames.
        void: id of pixels to ignore (255 in some datasets); None if there is none.

    Raises:
        InputError: if something is missing or inconsistent; the message names file, video and object.
    """
    described = Meta(annotations, {1: _OBJECT}, {}) if meta is None else read_meta(meta)
    builder = DatasetBuilder(frames, described.names)
    for name, folder in folders_with(annotations, PICTURE_SUFFIXES):
        pngs = list_pictures(folder)
        if not pngs:
            raise InputError(f"'{folder}': no PNGs")
        entry = described.video(name)
        pictures = builder.pictures(name, entry)
        missing = [str(path) for stem, path in pngs.items() if stem not in pictures]
        if missing:
            raise InputError(f"'{missing[0]}' has no frame in '{frames / name}'")
        used = [stem for stem in pictures if stem in pngs]
        video = builder.add_video([pictures[stem] for stem in used], entry.id)
        for frame, path in enumerate(pngs[stem] for stem in used):
            ids = video.read_ids(path)
            present = set(np.unique(ids).tolist()) - {0, void}
            objects = dict.fromkeys(present, MetaObject(1)) if meta is None else entry.objects
            if not present <= objects.keys():
                object_ = min(present - objects.keys())
                raise InputError(f"'{path}': object {object_} has no category in '{meta}'")
            try:
                video.add_ids(frame, ids, {number: objects[number] for number in present})
            except InputError as error:
                raise InputError(f"'{path}': object {error}") from None
    return builder.finish()


def write_davis(videos: list[LabelledVideo], names: dict[int, str], output: Path) -> None:
    """Writes PNGs with DAVIS's palette, and a meta.json in YouTube-VOS format.

    Where instances overlap, the first is in front: that with the highest score. Object ids start at 1 with
    the first. meta.json also has the ids of categories, videos and instances and the names of frames, so that
    :func:`read_davis` can restore them.

    Args:
        videos: the videos and their instances.
        names: category names by id.
        output: a new folder, for Annotations/ and meta.json.

    Raises:
        InputError: if a video has more than 255 instances, or the folder exists or cannot be written.
    """
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
        numbered = ((v.folder, v, range(1, len(v.instances) + 1)) for v in videos)
        write_meta(folder, names, numbered)


def _palette() -> list[int]:
    """Returns PASCAL VOC's palette, which DAVIS uses: the bits of an id, spread over red, green and blue."""
    ids = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= (ids >> (3 * level + channel) & 1) << (7 - level)
    return colors.flatten().tolist()
