"""All formats that can be written and read without loss, for tests of every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from seqformer.formats.coco import read_coco_video, write_coco
from seqformer.formats.cvat import read_cvat, write_cvat
from seqformer.formats.davis import read_davis, write_davis
from seqformer.formats.label_studio import read_label_studio, write_label_studio
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.labelme import read_labelme, write_labelme
from seqformer.formats.mots import read_mots, write_mots
from seqformer.formats.ytvis import Dataset, write_ytvis

Write = Callable[[list[LabelledVideo], dict[int, str], Path], None]
Read = Callable[[Path, Path], Dataset]  # of what was written, and of the frames


@dataclass(frozen=True)
class Format:
    write: Write
    read: Read
    overlaps: bool = True
    crowds: bool = True


def xml_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.xml"))


FORMATS = {
    "coco": Format(write_coco, read_coco_video),
    "cvat": Format(write_cvat, lambda out, frames: read_cvat(xml_files(out), frames, meta=out / "meta.json")),
    "davis": Format(
        write_davis,
        lambda out, frames: read_davis(out / "Annotations", frames, out / "meta.json"),
        overlaps=False,
    ),
    "label-studio": Format(
        write_label_studio,
        lambda out, frames: read_label_studio(out / "tasks.json", frames, out / "config.xml"),
    ),
    "labelme": Format(write_labelme, lambda out, frames: read_labelme(out, frames, out / "meta.json")),
    "mots": Format(
        write_mots,
        lambda out, frames: read_mots(out, frames, meta=out / "meta.json"),
        overlaps=False,
        crowds=False,
    ),
}


def save(dataset: Dataset, root: Path) -> Path:
    """Writes the dataset and its frames; returns the JSON."""
    for video in dataset.videos.values():
        for name in video.names:
            path = root / "frames" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (video.width, video.height)).save(path)
    write_ytvis(root / "dataset.json", dataset)
    return root / "dataset.json"
