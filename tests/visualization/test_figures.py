"""Figures: positions and colours of what is drawn, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Annotation, Dataset, Video
from seqformer.inference import Trace
from seqformer.structures import Tracklet, VideoResult
from seqformer.visualization import instance_color
from seqformer.visualization.comparison import side_by_side, side_by_side_size
from seqformer.visualization.figures import (
    FORMATS,
    Frames,
    instances_figure,
    sampling_points_figure,
    save_figure,
    temporal_weights_figure,
)
from seqformer.visualization.panels import rgb
from seqformer.visualization.rows import (
    Row,
    ShownInstance,
    difference_boxes,
    ground_truth_row,
    match_colors,
    read_results_row,
    result_row,
    trace_row,
)

HEIGHT, WIDTH, T = 60, 80, 3


def square(left: int, side: int = 20, hidden: tuple[int, ...] = ()) -> list:
    """T masks of a square that moves right by 5 pixels per frame."""
    masks = np.zeros((T, HEIGHT, WIDTH), dtype=bool)
    for t in range(T):
        if t not in hidden:
            masks[t, 20 : 20 + side, left + 5 * t : left + 5 * t + side] = True
    return encode_masks(masks)


def instance(number: int, masks: list, score: float | None = 0.9) -> ShownInstance:
    return ShownInstance(number, "person", score, masks)


def grey_frames(numbers: tuple[int, ...] = tuple(range(T))) -> Frames:
    pictures = [np.full((HEIGHT, WIDTH, 3), 120, np.uint8) for _ in numbers]
    return Frames(pictures, numbers, [t / 10 for t in range(max(numbers) + 1)])


@pytest.fixture
def trace() -> Trace:
    """Two layers, four queries; instance 0 is query 2, hidden in the last frame, and 1 is query 0."""
    rng = np.random.default_rng(0)
    logits = rng.random((2, T, 4, 2, 3, 2)).astype(np.float32)
    temporal = rng.random((2, T, 4)).astype(np.float32)
    boxes = np.full((2, T, 4, 4), 0.5, np.float32)
    boxes[..., 2:] = 0.25
    return Trace(
        sampling_locations=rng.random((2, T, 4, 2, 3, 2, 2)).astype(np.float32),
        attention_weights=logits / logits.sum((-2, -1), keepdims=True),
        reference_points=np.full((T, 4, 2), 0.25, np.float32),
        boxes=boxes,
        temporal_weights=temporal / temporal.sum(1, keepdims=True),
        class_probabilities=np.full((2, 4, 1), 0.7, np.float32),
        queries=np.array([2, 0]),
        segmentations=[square(5, hidden=(2,)), square(40)],
    )


def circles(figure: Figure) -> list[PathCollection]:
    return [c for axes in figure.axes for c in axes.collections if isinstance(c, PathCollection)]


def test_positions_of_sampling_points(trace: Trace) -> None:
    shown = trace_row("", trace, ["person"], [1, 0]).instances
    figure = sampling_points_figure(grey_frames(), trace, shown, [1, 2])
    assert len(figure.axes) == 2 * T
    found = circles(figure)
    assert len(found) == 2 * T * 2
    # Ordered by rows, columns, instances; the first is instance 1, query 0.
    xy = trace.sampling_locations[0, 0, 0].reshape(-1, 2) * (WIDTH, HEIGHT)
    weights = trace.attention_weights[0, 0, 0].reshape(-1)
    order = np.argsort(weights)
    np.testing.assert_allclose(found[0].get_offsets(), xy[order], rtol=1e-5)
    for quantity in (found[0].get_sizes(), found[0].get_facecolor()[:, 3]):
        assert (np.diff(quantity) >= 0).all() and quantity[-1] > quantity[0]
    for collection, number in ((found[0], 1), (found[1], 0)):
        np.testing.assert_allclose(collection.get_facecolor()[0, :3], rgb(number))
    last = trace.sampling_locations[1, 2, 2].reshape(-1, 2) * (WIDTH, HEIGHT)
    wanted = last[np.argsort(trace.attention_weights[1, 2, 2].reshape(-1))]
    np.testing.assert_allclose(found[-1].get_offsets(), wanted, rtol=1e-5)

    # Layer 1 has reference points, layer 2 boxes.
    crosses = figure.axes[0].lines
    assert len(crosses) == 4 and crosses[0].get_xydata().tolist() == [[0.25 * WIDTH, 0.25 * HEIGHT]]
    assert not figure.axes[0].patches and not figure.axes[T].lines
    box = figure.axes[T].patches[1]
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (30, 22.5, 20, 15)


def test_single_level(trace: Trace) -> None:
    shown = trace_row("", trace, ["person"], [0]).instances
    found = circles(sampling_points_figure(grey_frames(), trace, shown, [2], level=3))
    assert [len(collection.get_offsets()) for collection in found] == [4] * T
    wanted = trace.sampling_locations[1, 0, 2][:, 2].reshape(-1, 2) * (WIDTH, HEIGHT)
    np.testing.assert_allclose(sorted(found[0].get_offsets().tolist()), sorted(wanted.tolist()), rtol=1e-5)


def test_temporal_weights_are_the_bars(trace: Trace) -> None:
    shown = trace_row("", trace, ["person"], [0, 1]).instances
    figure = temporal_weights_figure(grey_frames((4, 7, 9)), trace, shown, [1, 2])
    bars = [axes for axes in figure.axes if axes.containers]
    assert len(bars) == 4 and len(figure.axes) == 4 + 2 * T
    for axes, (query, number, layer) in zip(bars, [(2, 0, 0), (2, 0, 1), (0, 1, 0), (0, 1, 1)], strict=True):
        heights = [bar.get_height() for bar in axes.containers[0]]
        np.testing.assert_allclose(heights, trace.temporal_weights[layer, :, query])
        np.testing.assert_allclose(axes.containers[0][0].get_facecolor()[:3], rgb(number))
        hatched = [patch for patch in axes.patches if patch.get_hatch()]
        assert [patch.get_x() for patch in hatched] == ([1.5] if number == 0 else [])
    assert [label.get_text() for label in bars[1].get_xticklabels()] == ["4", "7", "9"]


def test_all_frames_have_bars_if_some_do_not_fit(trace: Trace) -> None:
    many = 50
    trace.temporal_weights = np.full((2, many, 4), 1 / many, np.float32)
    shown = [instance(0, [square(5)[0]] * many)]
    frames = Frames([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * many, range(many))
    figure = temporal_weights_figure(frames, trace, shown, [2])
    bars = [axes for axes in figure.axes if axes.containers]
    assert len(bars) == 1 and len(bars[0].containers[0]) == many
    assert len(figure.axes) == 1 + 12


def test_layers_and_instances_that_do_not_exist(trace: Trace) -> None:
    shown = trace_row("", trace, ["person"], [0]).instances
    for make in (sampling_points_figure, temporal_weights_figure):
        with pytest.raises(InputError, match="no decoder layer 3: the model has 1 to 2"):
            make(grey_frames(), trace, shown, [1, 3])
        with pytest.raises(InputError, match="no instance 2: the model keeps 0 to 1"):
            make(grey_frames(), trace, [instance(2, square(5))], [1])
    with pytest.raises(InputError, match="no feature level 4: the model has 1 to 3"):
        sampling_points_figure(grey_frames(), trace, shown, [1], level=4)
    with pytest.raises(InputError, match="no instance 7"):
        trace_row("", trace, ["person"], [7])


def picture(figure: Figure, axes: int) -> np.ndarray:
    return np.asarray(figure.axes[axes].images[0].get_array())


def test_instances_keep_their_colours_in_all_frames() -> None:
    row = Row("ours", [instance(3, square(5)), instance(8, square(40, hidden=(1,)))])
    figure = instances_figure(grey_frames((0, 1)), [row], dpi=100, width=4)
    for column in range(2):
        shown = picture(figure, column)
        scale = shown.shape[1] / WIDTH
        for number, left in ((3, 5), (8, 40)):
            pixel = shown[round(30 * scale), round((left + 10 + 5 * column) * scale)]
            tint = np.rint(0.55 * 120 + 0.45 * np.array(instance_color(number)))
            is_there = number == 3 or column == 0
            np.testing.assert_array_equal(pixel, tint if is_there else [120, 120, 120])
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert [sorted(text) for text in texts] == [["0.90 #3", "0.90 #8"], ["0.90 #3"]]
    assert [axes.get_title() for axes in figure.axes] == ["frame 0 · 0.0 s", "frame 1 · 0.1 s"]


@pytest.mark.parametrize("width", [3.0, 12.0])
def test_labels_do_not_overlap(width: float) -> None:
    crowd = [instance(i, square(22 + 3 * i, side=8)) for i in range(4)]
    figure = instances_figure(grey_frames((0,)), [Row("ours", crowd)], width=width)
    places = [patch.get_bbox() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(places) == 4
    for i, one in enumerate(places):
        for other in places[:i]:
            shared = [min(one.max[k], other.max[k]) - max(one.min[k], other.min[k]) for k in (0, 1)]
            assert min(shared) <= 0
    assert {to_rgb(patch.get_facecolor()) for patch in figure.axes[0].patches} == {rgb(i) for i in range(4)}


def test_colours_match_between_rows() -> None:
    rows = [
        Row("ours", [instance(0, square(0)), instance(1, square(40))]),
        Row("other", [instance(0, square(42)), instance(1, square(20)), instance(2, square(1))]),
        Row("third", [instance(0, square(21))]),
    ]
    match_colors(rows)
    ids = [[i.instance_id for i in row.instances] for row in rows]
    assert ids == [[0, 1], [1, 2, 0], [2]], "what the first does not have keeps its colour, too"
    match_colors(rows)
    assert ids == [[i.instance_id for i in row.instances] for row in rows]


def test_a_fragment_keeps_the_colour_of_its_instance() -> None:
    rows = [Row("truth", [instance(5, square(10))]), Row("ours", [instance(0, square(10, hidden=(0, 1)))])]
    match_colors(rows)
    assert rows[1].instances[0].instance_id == 5


def test_differences_are_marked_and_outlines_are_not() -> None:
    rows = [
        Row("a", [instance(0, square(5)), instance(1, square(40))]),
        Row("b", [instance(0, square(6))]),
    ]
    maps = [row.id_map(0, (HEIGHT, WIDTH)) for row in rows]
    assert set(np.unique(maps[0])) == {-1, 0, 1}
    (box,) = difference_boxes(*maps)
    assert box.left <= 40 and box.top <= 20 and box.right >= 60 and box.bottom >= 40
    assert box.left > 30 and box.right < 70
    assert difference_boxes(maps[0], maps[0]) == []
    # The same mask with a different id is a difference.
    assert len(difference_boxes(maps[0], np.where(maps[0] == 1, 7, maps[0]))) == 1

    figure = instances_figure(grey_frames((0,)), rows, labels=False, mark_differences=True)
    assert not figure.axes[0].patches
    outlines = figure.axes[1].patches
    assert {patch.get_xy() for patch in outlines} == {(box.left, box.top)}
    assert not instances_figure(grey_frames((0,)), rows, labels=False).axes[1].patches


def test_touching_differences_are_merged() -> None:
    first = np.full((HEIGHT, WIDTH), -1)
    second = first.copy()
    second[10:20, 10:20] = 1
    second[15:40, 22:30] = 2
    second[0:8, 60:80] = 3
    boxes = difference_boxes(first, second)
    assert len(boxes) == 2
    assert all(0 <= b.left < b.right <= WIDTH and 0 <= b.top < b.bottom <= HEIGHT for b in boxes)
    assert boxes[0].overlap(boxes[1]) == 0


def test_side_by_side() -> None:
    rows = [
        Row("a", [instance(0, square(5)), instance(1, square(40))]),
        Row("b", [instance(0, square(5))]),
    ]
    frame = grey_frames().pictures[0]
    drawn = side_by_side(frame, rows, 0)
    height, width = side_by_side_size((HEIGHT, WIDTH), 2)
    assert drawn.shape == (height, width, 3) and drawn.dtype == np.uint8
    top, right = height - HEIGHT, width - WIDTH
    tint = np.rint(0.55 * 120 + 0.45 * np.array(instance_color(1)))
    assert (drawn[top + 20 : top + 40, 40:60] == tint).all(2).any()
    assert not (drawn[top:, right:] == tint).all(2).any()
    assert (drawn[top:, right:] == 255).all(2).any() and not (drawn[top:, :WIDTH] == 255).all(2).any()
    assert side_by_side_size((720, 1280), 3)[1] <= 1920


@pytest.mark.parametrize("format", FORMATS)
def test_formats_and_stable_files(tmp_path: Path, format: str) -> None:
    files = []
    for run in range(2):
        row = Row("a $method", [instance(0, square(5)), instance(1, square(40))])
        path = tmp_path / "new" / f"{run}.{format}"
        save_figure(instances_figure(grey_frames(), [row], width=4, dpi=72), path, format, 72)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[format]
    assert files[0].startswith(start)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"0.{format}", f"1.{format}"}
    if format == "png":
        with Image.open(tmp_path / "new/0.png") as image:
            assert image.width == 4 * 72
    if format == "pdf":
        assert b"/Type3" not in files[0] and b"CreationDate" not in files[0]


def test_figures_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    figure = instances_figure(grey_frames(), [Row("ours", [])])
    with pytest.raises(InputError, match="cannot write"):
        save_figure(figure, tmp_path / "file" / "a.png", "png", 72)


VIDEO = Video(1, [f"{t}.jpg" for t in range(T)], HEIGHT, WIDTH)


def entry(masks: list, **changes: object) -> dict:
    return {"video_id": 1, "category_id": 1, "score": 0.9, "segmentations": masks} | changes


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_results_of_one_video(tmp_path: Path) -> None:
    content = [
        entry(square(5), score=0.1),
        entry(square(40), score=0.5),
        entry(square(40), score=0.8, category_id=2),
        entry(square(20), video_id=2),
    ]
    path = write(tmp_path / "a.json", content)
    row = read_results_row("ours", path, VIDEO, {1: "cat"}, 0.4)
    assert [(i.instance_id, i.label, i.score) for i in row.instances] == [(1, "class 2", 0.8)]
    everything = read_results_row("ours", path, VIDEO, {1: "cat"}, 0.0)
    assert [i.instance_id for i in everything.instances] == [0, 1], "the threshold changes no colour"
    assert everything.instances[0].label == "cat"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not a list"),
        ([1], "not a list"),
        ([entry(square(5), video_id=2)], "no results for video 1; there are results for: 2"),
        ([entry(square(5)[:2])], "has 2 entries, but the video has 3 frames"),
        (
            [entry([{"size": [30, 40], "counts": [1200]}] * T)],
            r"size is \[30, 40\], but the frame's is \[60, 80\]",
        ),
        ([entry(square(5), score="high")], "'score' must be a finite number"),
        ([entry(square(5), category_id=None)], "'category_id' must be an integer"),
    ],
)
def test_results_that_do_not_match(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_results_row("ours", write(tmp_path / "a.json", content), VIDEO, {}, 0.4)


def test_a_method_without_results(tmp_path: Path) -> None:
    assert read_results_row("ours", write(tmp_path / "a.json", []), VIDEO, {}, 0.4).instances == []
    path = write(tmp_path / "a.json", [entry(square(5), video_id=2)])
    other = Video(2, VIDEO.names, HEIGHT, WIDTH)
    assert read_results_row("ours", path, VIDEO, {}, 0.4, {1: VIDEO, 2: other}).instances == []
    with pytest.raises(InputError, match="no results for video 1"):
        read_results_row("ours", path, VIDEO, {}, 0.4, {1: VIDEO})


def test_rows_of_predictions_and_ground_truth() -> None:
    tracklets = [
        Tracklet(4, 0, 0.5, square(5)),
        Tracklet(4, 1, 0.9, square(5)),
        Tracklet(6, 0, 0.1, square(40)),
    ]
    row = result_row("ours", VideoResult(HEIGHT, WIDTH, T, tracklets), ["cat", "dog"], 0.4)
    assert [(i.instance_id, i.label, i.score) for i in row.instances] == [(4, "dog", 0.9)]
    annotations = [Annotation(7, VIDEO, 1, crowd, square(5), None, None) for crowd in (True, False)]
    truth = ground_truth_row(Dataset({1: "cat"}, {1: VIDEO}, annotations), VIDEO)
    assert [(i.instance_id, i.label, i.score) for i in truth.instances] == [(0, "cat", None)]
    assert ground_truth_row(Dataset({1: "cat"}, {1: VIDEO}, None), VIDEO) is None
