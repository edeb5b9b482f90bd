"""Settings of a fine-tuning that are chosen from the data, the speed and the time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from networks import tiny_config

from seqformer.data import DatasetFigures
from seqformer.engine.finetuning import (
    CELLS_LEAST,
    CELLS_WANTED,
    Speed,
    cells,
    choose_batch,
    choose_clips,
    choose_schedule,
    choose_sizes,
    clip_pixels,
    size_values,
)
from seqformer.errors import InputError

FIGURES = DatasetFigures(
    num_videos=10,
    num_frames=200,
    num_instances=30,
    height=480,
    width=640,
    aspect=4 / 3,
    shortest=10,
    median_length=20,
    longest=30,
    median_visible=15,
    short_side=60,
    most_at_once=3,
    most_in_video=4,
)
FAST = Speed(seconds=1e-3, bytes=1, memory=1e12)


def config(**seqformer: object):
    cfg = tiny_config(**seqformer)
    cfg.INPUT.MIN_SIZE_TEST = 256
    cfg.INPUT.SAMPLING_FRAME_NUM = 3
    return cfg


@pytest.mark.parametrize("short_side", [20, 40, 60])
def test_small_instances_enlarge_the_frames(short_side: int) -> None:
    figures = replace(FIGURES, short_side=short_side)
    size, said = choose_sizes(config(), figures, FAST, 3600)
    assert cells(figures, size) >= CELLS_WANTED
    assert size < 480 * CELLS_WANTED * 4 / short_side + 32
    assert f"{size} pixels, of 480" in said[0] and len(said) == 1


def test_frames_are_not_smaller_than_those_of_the_model() -> None:
    assert choose_sizes(config(), replace(FIGURES, short_side=400), FAST, 3600)[0] == 256


def test_frames_are_not_enlarged_more_than_twice_and_tiny_instances_are_warned_of() -> None:
    size, said = choose_sizes(config(), replace(FIGURES, short_side=4), FAST, 3600)
    assert size == 960
    assert said[-1].startswith("warning: instances are tiny")


def test_little_time_makes_frames_smaller_but_not_too_small() -> None:
    figures = replace(FIGURES, short_side=20)
    sizes = [choose_sizes(config(), figures, Speed(seconds, 1, 1e12), 3600)[0] for seconds in (0.1, 3, 100)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert cells(figures, sizes[-1]) >= CELLS_LEAST
    assert "would be better" in choose_sizes(config(), figures, Speed(100, 1, 1e12), 3600)[1][1]


def test_little_memory_makes_frames_smaller() -> None:
    figures = replace(FIGURES, short_side=20)
    little = Speed(1e-3, 1000, 1000 * 2 * clip_pixels(figures, 640, 3))
    assert choose_sizes(config(), figures, little, 3600)[0] == 640


def test_the_longer_side_has_room() -> None:
    values = size_values(FIGURES, 480)
    assert values["INPUT.MAX_SIZE_TEST"] >= 640
    assert max(values["INPUT.MIN_SIZE_TRAIN"]) == values["INPUT.MIN_SIZE_TEST"] == 480


def test_clips_follow_the_inference_of_the_model_and_the_length_of_videos() -> None:
    values, _ = choose_clips(config(CLIP_MATCHING=True), FIGURES)
    assert values["MODEL.SeqFormer.CLIP_LENGTH"] == values["INPUT.SAMPLING_FRAME_NUM"] == 3
    assert values["INPUT.SAMPLING_FRAME_RANGE"] == 1
    values, said = choose_clips(config(), FIGURES)
    assert values["INPUT.SAMPLING_FRAME_RANGE"] == 29 and "whole video" in said
    values, _ = choose_clips(config(), replace(FIGURES, median_length=500, longest=900))
    assert values["MODEL.SeqFormer.CLIP_MATCHING"]
    assert values["INPUT.SAMPLING_FRAME_RANGE"] < values["MODEL.SeqFormer.CLIP_LENGTH"]
    values, _ = choose_clips(config(), replace(FIGURES, shortest=1, median_length=2, longest=2))
    assert values["INPUT.SAMPLING_FRAME_NUM"] == 2


def test_batches_grow_with_the_memory_of_a_gpu() -> None:
    cfg = config()
    assert choose_batch(cfg, 10, Speed(1, 1, 1)) == 2
    cfg.MODEL.DEVICE = "cuda"
    batches = [choose_batch(cfg, 10, Speed(1, 1, memory)) for memory in (1, 10, 45, 85, 10000)]
    assert batches == [1, 1, 4, 8, 16]


def test_the_schedule_fits_the_time() -> None:
    values = choose_schedule(2.0, 600)
    assert values["SOLVER.MAX_ITER"] == 300
    assert values["SOLVER.WARMUP_ITERS"] == 15
    assert values["LOG_PERIOD"] == 10
    with pytest.raises(
        InputError, match="`minutes` are too few: a step takes about 30.0 s.* at least 4 more"
    ):
        choose_schedule(30.0, 100)
