from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.structures import Tracklet, VideoResult

RLE = {"size": [4, 5], "counts": "5:5"}


@pytest.fixture
def masks() -> np.ndarray:
    """Four frames of 6x8 pixels: a rectangle, one pixel in a corner, nothing, and two parts."""
    masks = np.zeros((4, 6, 8), dtype=bool)
    masks[0, 1:3, 2:7] = True
    masks[1, 5, 7] = True
    masks[3, 0, 0] = masks[3, 4, 5] = True
    return masks


def test_masks_and_boxes_of_a_tracklet(masks: np.ndarray) -> None:
    tracklet = Tracklet(0, 0, 0.5, encode_masks(masks), "person", (6, 8))
    for t, mask in enumerate(masks):
        mask_t = tracklet.masks(t)
        assert mask_t.dtype == bool and np.array_equal(mask_t, mask)
    nothing = [np.nan] * 4
    np.testing.assert_array_equal(tracklet.boxes, [[2, 1, 7, 3], [7, 5, 8, 6], nothing, [0, 0, 6, 5]])


def test_a_tracklet_that_is_never_visible() -> None:
    tracklet = Tracklet(0, 0, 0.5, [None, None], "person", (6, 8))
    assert tracklet.masks(1).shape == (6, 8) and not tracklet.masks(1).any()
    assert tracklet.boxes.shape == (2, 4) and np.isnan(tracklet.boxes).all()


def test_entries_use_the_ids_of_the_dataset() -> None:
    video = VideoResult(4, 5, 2, [Tracklet(0, 1, 0.5, [RLE, None]), Tracklet(0, 0, 0.25, [None, RLE])])
    expected = [
        {"video_id": 7, "category_id": 30, "score": 0.5, "segmentations": [RLE, None]},
        {"video_id": 7, "category_id": 10, "score": 0.25, "segmentations": [None, RLE]},
    ]
    assert video.to_json(7, [10, 30]) == json.loads(json.dumps(expected))
    assert [(e["video_id"], e["category_id"]) for e in video.to_json()] == [(1, 2), (1, 1)]
    with pytest.raises(InputError, match="class 1 .* the dataset has 1 classes"):
        video.to_json(7, [10])


def test_a_result_is_printed_without_its_masks() -> None:
    assert "counts" not in repr(VideoResult(4, 5, 2, [Tracklet(0, 1, 0.5, [RLE, None], "dog", (4, 5))]))


def test_results_are_read_without_torch(repository) -> None:
    """A stub replaces the package itself, whose imports are tested elsewhere."""
    program = (
        "import sys, types\n"
        "package = types.ModuleType('seqformer'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['seqformer'] = package\n"
        "import seqformer.structures\n"
        "print(sorted({'torch', 'cv2', 'detectron2'} & set(sys.modules)))"
    )
    folder = repository / "projects/SeqFormer/seqformer"
    run = [sys.executable, "-c", program, str(folder)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "[]\n"
