"""A folder with all the files that the code blocks of the documentation name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_config
from originals import original_layout, released_file
from PIL import Image

from seqformer import SeqFormer, model_zoo
from seqformer.data.toy import make_toy_dataset
from seqformer.formats.results import write_results
from seqformer.formats.rle import decode_mask
from seqformer.formats.ytvis import Annotation, read_ytvis
from seqformer.video import VideoReader, VideoWriter

STREET_FRAMES = 8
LENGTH, HEIGHT, WIDTH = 12, 96, 128
CVAT = """<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>
<track id="0" label="car"><polygon frame="0" outside="0" keyframe="1" points="2,2;9,2;9,9;2,9"/></track>
</annotations>"""


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    with VideoWriter(path, *frames[0].shape[:2], Fraction(10)) as writer:
        for frame in frames:
            writer.write(frame)


def write_mots(folder: Path, annotations: list[Annotation], name: str, first: int = 0) -> None:
    """The annotations, whose category is at most 2, as MOTS text, folder/NAME."""
    lines = [
        f"{first + t} {a.category * 1000 + a.id} {a.category} {HEIGHT} {WIDTH} {mask['counts']}"
        for a in annotations
        for t, mask in enumerate(a.masks)
        if mask
    ]
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("\n".join(lines))


@pytest.fixture(scope="session")
def stand_ins(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files under the names that the documentation uses; see :func:`workspace`."""
    root = tmp_path_factory.mktemp("documentation")
    for name in ("configs", "tools", "benchmarks", "train_net.py", "demo/demo.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(repository / name)

    # The street, but short, and a model of random weights.
    (root / "demo/assets").mkdir()
    with VideoReader(repository / "demo/assets/street.mp4") as video:
        write_video(root / "demo/assets/street.mp4", list(islice(video, STREET_FRAMES)))
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=20)
    (root / "config.yaml").write_text(cfg.dump())
    torch.save({"model": SeqFormer(cfg).state_dict()}, root / "model.pth")

    # A dataset, results that predict all of its instances, and its first validation video.
    my = root / "my"
    make_toy_dataset(my, num_train=2, num_val=1, length=LENGTH, size=(HEIGHT, WIDTH))
    annotations = read_ytvis(my / "val.json").annotations
    for annotation in annotations:
        annotation.category = 1 + annotation.id % 2
    entries = [
        {"video_id": a.video.id, "category_id": a.category, "score": 0.9, "segmentations": a.masks}
        for a in annotations
    ]
    for name in ("results.json", "a.json", "b.json", "out.json", "out/inference/new/results.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_results(root / name, entries)
    shutil.copy(my / "val.json", root / "ground_truth.json")
    (root / "datasets/photo_vis").mkdir(parents=True)
    shutil.copy(my / "val.json", root / "datasets/photo_vis/val.json")
    pictures = sorted((my / "frames/val_001").iterdir())
    write_video(root / "video.mp4", [np.asarray(Image.open(path)) for path in pictures])

    # Other formats.
    for folder in ("new/street", "frames", "tasks/a", "tasks/b", "JPEGImages/bear", "image_02/0000"):
        shutil.copytree(my / "frames/val_001", root / folder)
    (root / "train/MOTS20-02/img1").mkdir(parents=True)
    for number, path in enumerate(pictures, start=1):
        shutil.copy(path, root / f"train/MOTS20-02/img1/{number:06d}.jpg")
    write_mots(root / "instances_txt", annotations, "0000.txt")
    people = [a for a in annotations if a.category == 2]
    write_mots(root / "train/MOTS20-02", people, "gt/gt.txt", first=1)
    masks = {a.id: [mask and decode_mask(mask) for mask in a.masks] for a in annotations}
    for folder in ("Annotations/bear", "instances/0000"):
        (root / folder).mkdir(parents=True)
    for t in range(LENGTH):
        objects = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        instances = objects.copy()
        for a in annotations:
            if masks[a.id][t] is not None:
                objects[masks[a.id][t] > 0] = a.id
                instances[masks[a.id][t] > 0] = a.category * 1000 + a.id
        Image.fromarray(objects.astype(np.uint8)).save(root / f"Annotations/bear/{t:05d}.png")
        Image.fromarray(instances).save(root / f"instances/0000/{t:06d}.png")
    categories = {str(a.id): {"category": f"class {a.category}"} for a in annotations}
    (root / "meta.json").write_text(json.dumps({"videos": {"bear": {"objects": categories}}}))
    for name in ("task.xml", "a.xml", "b.xml"):
        (root / name).write_text(CVAT)
    return root


@pytest.fixture(scope="session")
def made_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A download cache with random weights, in the original release's layout, as the released R50."""
    cache, name = tmp_path_factory.mktemp("cache"), "released/seqformer_R50_joint"
    weights = cache / "drive.google.com" / model_zoo.MODELS[name].drive_id / "weights.pth"
    weights.parent.mkdir(parents=True)
    state = SeqFormer(model_zoo.get_config(name)).state_dict()
    released_file(weights, original_layout(state, list(range(1, 41)), 42))
    return cache


@pytest.fixture
def workspace(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the stand-ins."""
    folder = tmp_path / "workspace"
    shutil.copytree(stand_ins, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def read_video() -> Callable[[Path], list[np.ndarray]]:
    """Reads all frames of a video."""

    def read(path: Path) -> list[np.ndarray]:
        with VideoReader(path) as video:
            return list(video)

    return read
