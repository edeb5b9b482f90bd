"""The toy dataset: reproducible from its seed, with shapes that occlude each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqformer.data import load_ytvis_json
from seqformer.data.toy import make_toy_dataset
from seqformer.formats.rle import decode_mask


def test_same_seed_same_files(tmp_path: Path) -> None:
    written = [
        make_toy_dataset(tmp_path / name, num_train=1, num_val=1, length=2, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    contents = [
        {path.relative_to(frames): path.read_bytes() for path in sorted(frames.rglob("*.jpg"))}
        for _, _, frames in written
    ]
    assert len(contents[0]) == 4
    assert contents[0] == contents[1] != contents[2]
    assert written[0][0].read_text() == written[1][0].read_text()


def test_masks_never_overlap_and_boxes_are_tight(tmp_path: Path) -> None:
    train, _, frames = make_toy_dataset(tmp_path, num_train=4, num_val=0, instances=5)
    hidden = 0
    for video in load_ytvis_json(train, frames):
        for seen in video["annotations"]:
            masks = np.stack([decode_mask(a["segmentation"]) for a in seen])
            assert masks.sum(axis=0).max() == 1
            hidden += len(seen) < 5
            for mask, annotation in zip(masks, seen, strict=True):
                rows, columns = np.nonzero(mask)
                x, y, width, height = annotation["bbox"]
                assert (x, y) == (columns.min(), rows.min())
                assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
    assert hidden, "no instance is ever hidden or outside"
