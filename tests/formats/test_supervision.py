"""supervision: the instances of a frame as Detections, and Detections as tracklets."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import supervision as sv

from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.inference import VideoPrediction
from seqformer.structures import Tracklet

HEIGHT, WIDTH, T = 12, 20, 3
SIZE = HEIGHT, WIDTH


@pytest.fixture
def masks() -> np.ndarray:
    """Two instances (2, T, H, W): one with a hole in all frames, one that is hidden in the first."""
    masks = np.zeros((2, T, HEIGHT, WIDTH), dtype=bool)
    masks[0, :, 2:9, 3:11] = True
    masks[0, :, 4, 5] = False
    masks[1, 1:, 5:12, 8:20] = True
    return masks


@pytest.fixture
def result(masks: np.ndarray) -> VideoPrediction:
    """The second instance has two classes."""
    first, second = (encode_masks(mask) for mask in masks)
    tracklets = [
        Tracklet(0, 2, 0.9, first, "dog", SIZE),
        Tracklet(5, 1, 0.3, second, "cat", SIZE),
        Tracklet(5, 2, 0.6, second, "dog", SIZE),
    ]
    return VideoPrediction(HEIGHT, WIDTH, T, tracklets)


@pytest.mark.parametrize("compact", [True, False])
def test_the_instances_of_a_frame(
    result: VideoPrediction, masks: np.ndarray, compact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compact:
        monkeypatch.delattr(sv, "CompactMask", raising=False)
    detections = result.to_supervision(1)
    assert isinstance(detections, sv.Detections)
    assert isinstance(detections.mask, np.ndarray) != (compact and hasattr(sv, "CompactMask"))
    np.testing.assert_array_equal(np.asarray(detections.mask), masks[:, 1])
    np.testing.assert_array_equal(detections.xyxy, [[3, 2, 11, 9], [8, 5, 20, 12]])
    assert detections.tracker_id.tolist() == [0, 5]
    assert detections.class_id.tolist() == [2, 2]
    assert detections.confidence.tolist() == [0.9, 0.6]
    assert detections["class_name"].tolist() == ["dog", "dog"]
    assert detections[detections.confidence > 0.7].tracker_id.tolist() == [0]
    assert result.to_supervision(1, threshold=0.7).tracker_id.tolist() == [0]
    assert result.to_supervision(0).tracker_id.tolist() == [0]


@pytest.mark.parametrize("compact", [True, False])
def test_a_frame_without_instances(compact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compact:
        monkeypatch.delattr(sv, "CompactMask", raising=False)
    detections = VideoPrediction(HEIGHT, WIDTH, T).to_supervision(2)
    assert len(detections) == 0 and detections.mask.shape == (0, HEIGHT, WIDTH)
    frame = np.full((HEIGHT, WIDTH, 3), 9, dtype=np.uint8)
    for annotator in (sv.MaskAnnotator(), sv.LabelAnnotator(), sv.TraceAnnotator()):
        assert (annotator.annotate(frame.copy(), detections) == 9).all()
    assert len(sv.Detections.merge([detections, detections])) == 0


@pytest.mark.parametrize("t", [-1, T])
def test_a_frame_that_does_not_exist(result: VideoPrediction, t: int) -> None:
    with pytest.raises(InputError, match=f"there is no frame {t}: the video has frames 0 to 2"):
        result.to_supervision(t)


def test_masks_of_all_shapes_come_back(result: VideoPrediction) -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((4, T, HEIGHT, WIDTH)) < np.asarray([0.01, 0.1, 0.9, 1])[:, None, None, None]
    tracklets = [Tracklet(n, n, 0.1 * n, encode_masks(mask), str(n), SIZE) for n, mask in enumerate(noise)]
    video = VideoPrediction(HEIGHT, WIDTH, T, tracklets)
    back = VideoPrediction.from_supervision((video.to_supervision(t) for t in range(T)), SIZE)
    assert sorted(back.tracklets, key=lambda tracklet: tracklet.instance_id) == tracklets


def test_a_result_comes_back_with_the_best_class_of_each_instance(result: VideoPrediction) -> None:
    frames = [result.to_supervision(t) for t in range(T)]
    back = VideoPrediction.from_supervision(frames, SIZE, source="street.mp4")
    expected = VideoPrediction(HEIGHT, WIDTH, T, [result.tracklets[0], result.tracklets[2]], "street.mp4")
    assert back == expected


def made(tracker_id: list[int] | None, count: int = 1, **more: object) -> sv.Detections:
    mask = np.zeros((count, HEIGHT, WIDTH), dtype=bool)
    mask[:, 2:5, 3:7] = True
    tracker = None if tracker_id is None else np.asarray(tracker_id)
    return sv.Detections(
        xyxy=np.asarray([[3, 2, 7, 5]] * count), tracker_id=tracker, **({"mask": mask} | more)
    )


def test_detections_of_other_models() -> None:
    """Classes and confidences change from frame to frame, one detection is not tracked."""
    frames = [
        made([4], confidence=np.asarray([0.5]), class_id=np.asarray([1]), data={"class_name": ["cat"]}),
        sv.Detections.empty(),
        made(
            [4, -1],
            2,
            confidence=np.asarray([0.75, 0.9]),
            class_id=np.asarray([0, 1]),
            data={"class_name": np.asarray(["dog", "cat"])},
        ),
    ]
    (tracklet,) = VideoPrediction.from_supervision(frames, SIZE).tracklets
    assert (tracklet.instance_id, tracklet.label, tracklet.class_name, tracklet.score) == (4, 0, "dog", 0.625)
    assert [mask is not None for mask in tracklet.segmentations] == [True, False, True]


def test_what_is_missing_has_a_default() -> None:
    prediction = VideoPrediction.from_supervision([made([3]), made([3])], SIZE)
    (tracklet,) = prediction.tracklets
    assert (tracklet.label, tracklet.class_name, tracklet.score) == (0, "", 1.0)
    assert prediction.length == 2
    empty = made([3], mask=np.zeros((1, HEIGHT, WIDTH), dtype=bool))
    assert VideoPrediction.from_supervision([empty], SIZE).tracklets == []


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (made([1], mask=None), "frame 1: the detections have no masks"),
        (made(None), "frame 1: the detections have no tracker ids: run a tracker on them first"),
        (
            made([1], mask=np.ones((1, WIDTH, HEIGHT), dtype=bool)),
            "frame 1: the masks are 12x20 pixels, not 20x12",
        ),
        (made([1, 1], 2), "frame 1: two detections have the tracker id 1"),
    ],
)
def test_detections_that_cannot_be_used(detections: sv.Detections, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VideoPrediction.from_supervision([sv.Detections.empty(), detections], SIZE)


def test_without_supervision(result: VideoPrediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="supervision is not installed: pip install supervision"):
        result.to_supervision(0)


def test_the_package_is_imported_only_when_it_is_needed() -> None:
    program = "import sys, seqformer.inference; print('supervision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
