"""Every format gives back what it was given: ids, names, the order of categories and frames, and masks."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from all_formats import FORMATS, save
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.evaluation import evaluate_ytvis
from seqformer.formats.files import natural_order
from seqformer.formats.labelled import read_labelled
from seqformer.formats.rle import decode_mask, encode_masks
from seqformer.formats.yolo import read_yolo, write_yolo
from seqformer.formats.ytvis import Annotation, Dataset, Video, read_ytvis, write_ytvis

FOLDERS = ["b", "a", "a10", "a9", "A2", "x/y", "x/z/w", "é ü", "1", "01", "img1", "a.b"]
STEMS = ["10", "9", "009", "img_1", "frame 2", "a.b", "Z", "meta", "é"]
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=4)


@st.composite
def datasets(draw: st.DrawFn, overlaps: bool, crowds: bool) -> Dataset:
    """A dataset with at least one instance that is not a crowd."""
    ids = partial(st.lists, unique=True)
    categories = sorted(draw(ids(st.integers(0, 300), min_size=1, max_size=3)))
    names = draw(st.lists(NAMES, unique=True, min_size=len(categories), max_size=len(categories)))
    dataset = Dataset(dict(zip(categories, names, strict=True)), {}, [])
    folders = draw(ids(st.sampled_from(FOLDERS), min_size=1, max_size=3))
    video_ids = draw(ids(st.integers(0, 99), min_size=len(folders), max_size=len(folders)))
    instance_ids = iter(draw(st.permutations(range(1, 11))))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    for id_, folder in zip(video_ids, folders, strict=True):
        stems = draw(ids(st.sampled_from(STEMS), min_size=1, max_size=3))
        height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        video = dataset.videos[id_] = Video(id_, [f"{folder}/{stem}.png" for stem in stems], height, width)
        first = not dataset.annotations
        count = draw(st.integers(int(first), 3))
        shape = len(stems), height, width
        masks = random.random((count, *shape)) < draw(st.sampled_from([0.1, 0.5, 1]))
        if not overlaps:
            masks &= random.integers(0, max(count, 1), shape) == np.arange(count)[:, None, None, None]
        if first:
            masks[:, 0, 0, 0] = np.arange(count) == 0
        for mask in masks[masks.any((1, 2, 3))]:
            crowd = crowds and bool(dataset.annotations) and draw(st.booleans())
            category = draw(st.sampled_from(categories))
            annotation = Annotation(next(instance_ids), video, category, crowd, encode_masks(mask))
            dataset.annotations.append(annotation)
    return dataset


def pixels(annotation: Annotation) -> bytes:
    size = annotation.video.height, annotation.video.width
    empty = np.zeros(size, np.uint8)
    return np.stack([empty if mask is None else decode_mask(mask) for mask in annotation.masks]).tobytes()


def content(dataset: Dataset) -> tuple[object, ...]:
    """What must not change, in an order of its own where the order has no meaning."""
    videos = {id_: (video.names, video.height, video.width) for id_, video in dataset.videos.items()}
    annotations = {a.id: (a.video.id, a.category, a.crowd, pixels(a)) for a in dataset.annotations}
    assert len(annotations) == len(dataset.annotations)
    return list(dataset.names.items()), videos, annotations


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_dataset_comes_back(name: str, data: st.DataObject) -> None:
    form = FORMATS[name]
    dataset = data.draw(datasets(form.overlaps, form.crowds))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        original = save(dataset, root)
        names, videos = read_labelled(original)
        form.write(videos, names, root / "out")
        back = form.read(root / "out", root / "frames")
        assert content(back) == content(dataset)
        write_ytvis(root / "back.json", back)
        assert content(read_ytvis(root / "back.json")) == content(dataset)
        results = [
            {"video_id": a.video.id, "category_id": a.category, "score": 1.0, "segmentations": a.masks}
            for a in back.annotations
            if not a.crowd
        ]
        assert evaluate_ytvis(original, results)["AP"] == pytest.approx(100)


@settings(max_examples=40)
@given(dataset=datasets(overlaps=True, crowds=True))
def test_yolo_loses_only_tracks_and_crowds(dataset: Dataset) -> None:
    def masks(dataset: Dataset) -> Counter:
        return Counter(
            (a.video.names[t], a.category, decode_mask(mask).tobytes())
            for a in dataset.annotations
            for t, mask in enumerate(a.masks)
            if mask and not a.crowd
        )

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names, videos = read_labelled(save(dataset, root))
        write_yolo(videos, names, root / "out", root / "frames")
        back = read_yolo(root / "out", root / "frames")
        assert list(back.names.items()) == list(dataset.names.items())
        expected = {tuple(sorted(v.names, key=natural_order)) for v in dataset.videos.values()}
        assert {tuple(video.names) for video in back.videos.values()} == expected
        assert masks(back) == masks(dataset)
        linked = {p.relative_to(root / "out/images").as_posix() for p in (root / "out/images").rglob("*.png")}
        assert linked == {name for video in dataset.videos.values() for name in video.names}
        assert all(path.read_bytes() for path in (root / "out/images").rglob("*.png"))


@pytest.mark.parametrize("name", FORMATS)
def test_results_come_back_with_their_scores(name: str, made: Any) -> None:
    form = FORMATS[name]
    dataset, results = made.write()
    names, videos = read_labelled(dataset, results)
    form.write(videos, names, made.root / "out")
    back = form.read(made.root / "out", made.frames)
    made.assert_same(back)
    scores = {1: 0.9, 2: 0.8, 3: 0.9 - 0.1 * 2, 4: 0.9 - 0.1 * 3}
    assert {annotation.id: annotation.score for annotation in back.annotations} == scores
