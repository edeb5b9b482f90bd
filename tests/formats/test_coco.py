"""COCO files whose images are frames of videos: which frames and annotations belong together, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqformer.errors import InputError
from seqformer.formats.coco import read_coco_video, write_coco
from seqformer.formats.labelled import read_labelled


def edited(made: Any, change: Callable[[Any], object]) -> Path:
    dataset, results = made.write()
    names, videos = read_labelled(dataset, results)
    path = made.root / "frames.json"
    write_coco(videos, names, path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_videos_by_folder_and_frames_by_name(made: Any) -> None:
    """The images of a file that knows no videos, in any order."""

    def change(data: Any) -> None:
        del data["videos"]
        data["images"].reverse()
        for image in data["images"]:
            del image["video_id"], image["frame_id"]

    dataset = made.checked(read_coco_video(edited(made, change), made.frames))
    made.assert_same(dataset)
    assert [video.names[0] for video in dataset.videos.values()] == ["b/00000.jpg", "a/00000.jpg"]


def test_ids_of_instances_in_other_places(made: Any) -> None:
    """CVAT writes track_id among the attributes; others call it instance_id and count in each video."""

    def change(data: Any) -> None:
        for annotation in data["annotations"]:
            track = annotation.pop("track_id")
            if annotation["video_id"] == 1:
                annotation["attributes"] = {"track_id": track, "occluded": False}
            else:
                annotation["instance_id"] = track - 2

    dataset = read_coco_video(edited(made, change), made.frames)
    made.assert_same(dataset)
    assert [annotation.id for annotation in dataset.annotations] == [1, 2, 3, 4]


def test_annotations_without_a_track(made: Any) -> None:
    def change(data: Any) -> None:
        for annotation in data["annotations"]:
            del annotation["track_id"]

    dataset = read_coco_video(edited(made, change), made.frames)
    assert [sum(map(bool, annotation.masks)) for annotation in dataset.annotations] == [1] * 9


def test_the_score_of_an_instance_is_the_mean_of_its_frames(made: Any) -> None:
    def change(data: Any) -> None:
        for annotation, score in zip(data["annotations"][:3], (0.25, 0.5, 0.75), strict=True):
            annotation["score"] = score

    assert read_coco_video(edited(made, change), made.frames).annotations[0].score == 0.5


def test_polygons(made: Any) -> None:
    square = [[2, 2, 6, 2, 6, 6, 2, 6]]
    path = edited(made, lambda data: data["annotations"][0].update(segmentation=square))
    (annotation, *_) = made.checked(read_coco_video(path, made.frames)).annotations
    assert annotation.boxes[0] == [2, 2, 4, 4] and annotation.areas[0] == 16


def test_integral_floats_are_integers(made: Any) -> None:
    """As pandas and JavaScript write them."""

    def change(data: Any) -> None:
        for entry in (*data["images"], *data["annotations"], *data["videos"]):
            entry.update({key: float(entry[key]) for key in entry if key.endswith("id")})

    dataset = made.checked(read_coco_video(edited(made, change), made.frames))
    made.assert_same(dataset)
    assert [type(annotation.id) for annotation in dataset.annotations] == [int] * 4


def set_image(**values: Any) -> Callable[[Any], None]:
    return lambda data: data["images"][0].update(values)


def set_annotation(**values: Any) -> Callable[[Any], None]:
    return lambda data: data["annotations"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("images"), "'images' must be a list of objects; is it COCO format"),
        (lambda data: data.pop("categories"), "'categories' must be a list of objects"),
        (lambda data: data.pop("annotations"), "'annotations' must be a list of objects"),
        (lambda data: data.update(videos=1), "'videos' must be a list of objects"),
        (set_image(id=2), "image 2: ids must be integers, each used once"),
        (set_image(id="1"), "image 1: ids must be integers, each used once"),
        (set_image(file_name=None), "image 1: no 'file_name'"),
        (set_image(video_id="a"), "image 1: 'video_id' must be an integer, not 'a'"),
        (set_image(frame_id=0.5), "image 1: 'frame_id' must be an integer, not 0.5"),
        (set_image(file_name="a/9.jpg"), "video 1: no frame '.*a/9.jpg'"),
        (set_image(file_name="../a/00000.jpg"), "'../a/00000.jpg' is not in the folder of frames"),
        (set_image(file_name="a/../../x.jpg"), "'a/../../x.jpg' is not in the folder of frames"),
        (set_image(file_name="/a/00000.jpg"), "'/a/00000.jpg' is not in the folder of frames"),
        (set_image(file_name="a" * 300), "video 1: no frame '.*aaa'"),
        (set_image(file_name="C:\\a.jpg"), "is not in the folder of frames"),
        (set_image(file_name="..\\a.jpg"), "is not in the folder of frames"),
        (set_image(file_name="a/\0.jpg"), "is not in the folder of frames"),
        (set_image(file_name="a/\ud800.jpg"), "is not in the folder of frames"),
        (set_annotation(image_id=99), "image 99, annotation 1: there is no image with that id"),
        (set_annotation(category_id=7), "image 1, annotation 1: category_id 7 is not one of the categories"),
        (set_annotation(category_id=2), "annotation 2: track 1 is 'car' here and 'person' in an earlier"),
        (set_annotation(image_id=2), "annotation 2: track 1 appears twice in the frame"),
        (set_annotation(track_id=[1]), r"annotation 1: 'track_id' must be an integer, not \[1\]"),
        (set_annotation(score="x"), "annotation 1: 'score' must be a number, not 'x'"),
        (set_annotation(segmentation=[]), "annotation 1: no 'segmentation'; a box is not a mask"),
        (
            set_annotation(segmentation={"size": [9, 9], "counts": [81]}),
            r"annotation 1: the mask's size is \[9, 9\], but the frame's is \[24, 40\]",
        ),
    ],
)
def test_unusable_files(made: Any, change: Callable[[Any], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_coco_video(edited(made, change), made.frames)
