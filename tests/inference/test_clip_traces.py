"""What a tracer keeps of overlapping clips agrees with traces of each clip alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny_model
from torch import Tensor

from seqformer import SeqFormer
from seqformer.inference import ClipTracer, trace
from seqformer.inference.video import DecodedClip, VideoInference

LENGTH = 7
CLIP_LENGTH, POINTS = 3, 5


@pytest.fixture(scope="module")
def model() -> SeqFormer:
    torch.manual_seed(0)
    model = tiny_model(
        NUM_OBJECT_QUERIES=20, CLIP_MATCHING=True, CLIP_LENGTH=CLIP_LENGTH, CLIP_STRIDE=2, MERGE_ON_CPU=True
    )
    for name, parameter in model.network.detr.named_parameters():
        if any(part in name for part in ("sampling_offsets", "attention_weights", "bbox_embed", "time_att")):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randint(0, 256, (LENGTH, 3, 40, 60), dtype=torch.uint8, generator=generator))


@pytest.fixture(scope="module")
def traced(model: SeqFormer, images: list[Tensor]) -> tuple[ClipTracer, list[DecodedClip]]:
    clips: list[DecodedClip] = []
    with ClipTracer(model.network, points=POINTS) as tracer:

        def watch(clip: DecodedClip) -> None:
            clips.append(clip)
            tracer(clip)

        list(VideoInference(model.network, model.options, observer=watch).run(images))
    return tracer, clips


def test_every_frame_has_the_clip_whose_middle_is_nearest(model, images, traced) -> None:
    """Of equals the first; the numbers are those of a trace of that clip's frames, the heaviest points."""
    tracer, clips = traced
    alone = {
        clip.start: trace(
            model.network, model.options, images[clip.start : clip.start + CLIP_LENGTH], with_masks=False
        )
        for clip in clips
    }
    assert len(tracer.frames) == LENGTH and tracer.num_points == 4 * 4 * 4
    for frame in range(LENGTH):
        holding = {
            i: [c for c in clips if i in c.ids and c.start <= frame < c.start + CLIP_LENGTH]
            for i in {i for c in clips for i in c.ids}
        }
        assert set(tracer.frames[frame]) == {i for i, held in holding.items() if held}
        for i, found in tracer.frames[frame].items():
            nearest = min(holding[i], key=lambda c: abs(frame - c.start - (CLIP_LENGTH - 1) / 2))
            assert found.clip.start == nearest.start
            query = int(nearest.queries[nearest.ids.index(i)])
            expected, t = alone[nearest.start], frame - nearest.start
            np.testing.assert_allclose(found.boxes, expected.boxes[:, t, query], atol=1e-4)
            np.testing.assert_allclose(found.reference_point, expected.reference_points[t, query], atol=1e-4)
            np.testing.assert_allclose(found.clip.weights, expected.temporal_weights[:, :, query], atol=1e-4)
            weights = expected.attention_weights[:, t, query].reshape(3, -1)
            heaviest = -np.sort(-weights, axis=1)[:, :POINTS]
            np.testing.assert_allclose(found.points[..., 2], heaviest, atol=1e-4)
            np.testing.assert_allclose(found.kept, heaviest.sum(1) / weights.sum(1), atol=1e-4)


def test_shares_are_means_over_all_clips(traced) -> None:
    """Temporal weight times clip length, so a frame like all others has 1."""
    tracer, clips = traced
    for frame in range(LENGTH):
        for i, share in tracer.shares(frame).items():
            weights = [
                clip.outputs[layer].temporal_weights[
                    0, frame - clip.start, int(clip.queries[clip.ids.index(i)])
                ]
                for layer in range(3)
                for clip in clips
                if i in clip.ids and clip.start <= frame < clip.start + CLIP_LENGTH
            ]
            expected = CLIP_LENGTH * torch.stack(weights).reshape(3, -1).mean(1)
            np.testing.assert_allclose(share, expected.numpy(), atol=1e-4)


def test_hooks_are_there_within_the_block_alone(model: SeqFormer) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    with ClipTracer(model.network):
        assert hooks() == 3
    assert hooks() == 0
