"""Inference decodes the planned clips, and its results agree with the slow references."""

from __future__ import annotations

import pytest
import torch
from networks import tiny_model
from slow_tracking import clip_starts, readable_matching

from seqformer.inference import video
from seqformer.inference.postprocess import output_masks, scored_classes
from seqformer.inference.video import VideoInference
from seqformer.tracking import ClipInstances, InstanceStore, assign_by_overlap


@pytest.mark.parametrize(
    ("num_frames", "length", "stride", "expected"),
    [(5, 3, 1, [0, 1, 2]), (5, 2, 2, [0, 2, 3]), (3, 5, 1, [0]), (5, 5, 1, [0]), (6, 5, 4, [0, 1])],
)
def test_inference_decodes_the_clips_of_the_definition(
    device: torch.device, num_frames, length, stride, expected
) -> None:
    assert clip_starts(num_frames, length, stride) == expected
    model = tiny_model(CLIP_MATCHING=True, CLIP_LENGTH=length, CLIP_STRIDE=stride).to(device)
    decoded = []
    inference = VideoInference(model.network, model.options, observer=decoded.append)
    finals = list(inference.run([torch.rand(3, 32, 32) * 255 for _ in range(num_frames)]))
    assert [clip.start for clip in decoded] == expected
    assert {len(clip.frames) for clip in decoded} == {min(length, num_frames)}
    assert sum(final.mask_logits.shape[1] for final in finals) == num_frames


@pytest.mark.parametrize(
    ("num_frames", "length", "stride", "max_live"),
    [(10, 3, 1, 0), (10, 4, 3, 0), (9, 3, 3, 0), (2, 5, 1, 0), (10, 3, 1, 12)],
)
def test_a_videos_result_is_the_readable_versions(
    monkeypatch, device: torch.device, num_frames: int, length: int, stride: int, max_live: int
) -> None:
    """Compares scores, labels and masks, given the network's output for each clip."""
    clips = []

    def assign(store: InstanceStore, clip: ClipInstances) -> list[int]:
        clips.append(clip)
        return assign_by_overlap(store, clip)

    monkeypatch.setattr(video, "assign_by_overlap", assign)
    clipping = {"CLIP_LENGTH": length, "CLIP_STRIDE": stride, "MAX_LIVE_INSTANCES": max_live}
    model = tiny_model(CLIP_MATCHING=True, APPLY_CLS_THRES=0.009, **clipping).to(device)
    noise = torch.rand(num_frames + 4, 3, 40, 56)
    images = [255 * noise[t : t + 4].mean(0) for t in range(num_frames)]
    result = model([{"image": images, "height": 80, "width": 112}])
    assert [clip.start for clip in clips] == clip_starts(num_frames, length, stride)
    classes, logits = readable_matching(clips, length, num_frames, max_live)
    expected = scored_classes(classes, model.options)
    assert expected
    assert result["pred_scores"] == [score for _, _, score in expected]
    assert result["pred_labels"] == [label for _, label, _ in expected]
    for (i, _, _), found in zip(expected, result["pred_masks"], strict=True):
        masks = torch.zeros(num_frames, 80, 112, dtype=torch.bool)
        for f in range(num_frames):
            if (i, f) in logits:
                masks[f] = output_masks(logits[i, f][None, None], (40, 56), (80, 112))[0, 0].cpu()
        assert (masks != found).sum() <= 1e-3 * masks.sum()


@pytest.mark.parametrize("clips", [False, True])
def test_every_frame_is_encoded_once(clips: bool) -> None:
    """Even if several clips contain it."""
    model = tiny_model(CLIP_MATCHING=clips, CLIP_LENGTH=3)
    encoded = []
    encode = model.network.encode
    model.network.encode = lambda images: (encoded.extend(images), encode(images))[1]
    images = [torch.full((3, 32, 32), float(t)) for t in range(7)]
    assert sum(final.present.shape[1] for final in VideoInference(model.network, model.options).run(images))
    assert [int(image[0, 0, 0]) for image in encoded] == list(range(7))


@pytest.mark.parametrize("clips", [False, True])
def test_results_do_not_depend_on_batches_of_frames(device: torch.device, slack: float, clips: bool) -> None:
    options = {"CLIP_LENGTH": 3, "CLIP_STRIDE": 2, "APPLY_CLS_THRES": 0.009}
    model = tiny_model(CLIP_MATCHING=clips, **options).to(device)
    images = list(torch.rand(8, 3, 40, 56) * 255)
    results = []
    for sizes in ([1] * 8, [3, 5], [8]):
        inference, frames = VideoInference(model.network, model.options), iter(images)
        finals = [f for size in sizes for f in inference.push([next(frames) for _ in range(size)])]
        finals += list(inference.finish())
        logits = {}
        for final in finals:
            for i, held, present in zip(final.ids, final.mask_logits, final.present, strict=True):
                logits.update({(i, final.start + t): held[t] for t in range(len(held)) if present[t]})
        results.append((logits, inference.pop_retired()))
    for logits, retired in results[1:]:
        assert [(e.instance_id, [label for label, _ in e.scores]) for e in retired] == [
            (e.instance_id, [label for label, _ in e.scores]) for e in results[0][1]
        ]
        torch.testing.assert_close(logits, results[0][0], rtol=1e-3 * slack, atol=1e-4 * slack)


@pytest.mark.parametrize(("stride", "shared"), [(1, True), (2, True), (3, False)])
def test_overlapping_clips_share_values(monkeypatch, stride: int, shared: bool) -> None:
    """They are projected once per frame, and the results are those without sharing."""
    model = tiny_model(CLIP_MATCHING=True, CLIP_LENGTH=3, CLIP_STRIDE=stride)
    images = list(torch.rand(8, 3, 40, 56) * 255)
    decoder = model.network.detr.transformer.decoder
    projected = []
    values = decoder.values
    decoder.values = lambda memory, padding: (projected.append(len(memory)), values(memory, padding))[1]
    results = []
    for limit in (1e9, 0):
        monkeypatch.setattr(video, "_KEPT_VALUES", limit)
        inference, clips = VideoInference(model.network, model.options), []
        inference._observer = clips.append
        results.append([f.mask_logits for f in inference.run(images)])
        assert all(bool(clip.frames.values) == (shared and limit > 0) for clip in clips)
    assert sum(projected) == (8 if shared else 0)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_a_video_that_outgrows_one_clip_shares_values_from_then_on(monkeypatch) -> None:
    model = tiny_model(AUTO_MEMORY_GB=1.0, CLIP_LENGTH=3)
    monkeypatch.setattr(video, "fits_one_clip", lambda length, cost, budget: length <= 4)
    clips = []
    inference = VideoInference(model.network, model.options, length=4, observer=clips.append)
    for image in torch.rand(7, 3, 32, 32) * 255:
        list(inference.push([image]))
    list(inference.finish())
    assert len(clips) == 5 and all(clip.frames.values for clip in clips)


def test_a_clip_without_probable_candidates() -> None:
    """Matching by motion drops them, so their masks are not computed."""
    options = {"CLIP_MATCHING": True, "CLIP_LENGTH": 3, "MOTION_WEIGHT": 0.5}
    model = tiny_model(**options, MOTION_LEAST_PROBABILITY=0.999)
    drawn = []
    masks = model.network.masks
    model.network.masks = lambda *args: (drawn.append(len(args[1])), masks(*args))[1]
    inference = VideoInference(model.network, model.options)
    finals = list(inference.run(list(torch.rand(5, 3, 32, 32) * 255)))
    assert sum(final.mask_logits.shape[1] for final in finals) == 5
    assert set(drawn) == {0} and not any(final.ids for final in finals)


def test_a_video_without_frames() -> None:
    model = tiny_model()
    inference = VideoInference(model.network, model.options)
    assert list(inference.run([])) == [] and inference.num_final == 0 and inference.pop_retired() == []
