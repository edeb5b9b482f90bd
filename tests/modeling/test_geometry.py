from __future__ import annotations

import copy
import pickle

import torch
from networks import tiny_model, two_moving_squares

from seqformer.modeling.geometry import GeometryOfSize, cell_padding, frame_geometry, reference_points
from seqformer.modeling.layers import Levels

SHAPES = [(4, 6), (2, 3)]
S = 30
LEVELS = Levels(SHAPES, torch.device("cpu"))
SIZE = (41, 20)  # of 48 x 32
CPU = torch.device("cpu")


def test_reference_points_are_cell_centres() -> None:
    """One cell and level at a time: relative to the unpadded part, times its fraction of the level."""
    ratios = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[4 / 6, 3 / 4], [2 / 3, 1.0]]])
    points = reference_points(LEVELS, ratios)
    assert points.shape == (2, S, 2, 2)
    for n in range(2):
        cell = 0
        for own, (height, width) in enumerate(SHAPES):
            for row in range(height):
                for column in range(width):
                    x = (column + 0.5) / (ratios[n, own, 0] * width)
                    y = (row + 0.5) / (ratios[n, own, 1] * height)
                    for level in range(2):
                        expected = torch.stack((x * ratios[n, level, 0], y * ratios[n, level, 1]))
                        torch.testing.assert_close(points[n, cell, level], expected)
                    cell += 1
    own_level = points[1, :24, 0].view(4, 6, 2)
    torch.testing.assert_close(own_level[2, 3], torch.tensor([3.5 / 6, 2.5 / 4])), "its own centre"


def test_one_frame_stands_for_all_of_its_size(device: torch.device) -> None:
    levels = Levels(SHAPES, device)
    three = frame_geometry(torch.tensor([SIZE] * 3, device=device), 32, 48, levels, 8)
    one = GeometryOfSize().of(SIZE, 32, 48, SHAPES, 8, device).expand(3)
    for name in ("padding_mask", "valid_ratios", "reference"):
        assert torch.equal(getattr(one, name), getattr(three, name))
    assert one.position.shape == (1, S, 8) and torch.equal(one.position.expand(3, -1, -1), three.position)
    mask, ratios = cell_padding(torch.tensor([SIZE], device=device), 32, 48, levels)
    assert torch.equal(mask[0], three.padding_mask[1]) and torch.equal(ratios[0], three.valid_ratios[1])
    assert mask[0, :24].view(4, 6).tolist() == [[False] * 6] * 3 + [[True] * 6], "20 of 32 rows, 8 a cell"


def test_it_is_kept_until_something_changes() -> None:
    kept = GeometryOfSize()
    first = kept.of(SIZE, 32, 48, SHAPES, 8, CPU)
    assert kept.of(SIZE, 32, 48, SHAPES, 8, CPU) is first
    for changed in (
        ((40, 20), 32, 48, SHAPES, 8),
        (SIZE, 64, 96, [(8, 12), (4, 6)], 8),
        (SIZE, 32, 48, SHAPES, 16),
    ):
        other = kept.of(*changed, CPU)
        assert other is not first and other.position.shape[2] == changed[4]
    with torch.inference_mode():
        assert kept.of(*changed, CPU) is not other
    for copied in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert isinstance(copied, GeometryOfSize) and copied._kept is None


def test_a_network_gives_the_same_for_frames_of_one_size_and_of_several(device: torch.device) -> None:
    """With one size geometry is kept, with several it is computed for every frame."""
    network = tiny_model().to(device).network
    images = [torch.rand(3, *size) * 255 for size in ((50, 70), (50, 70), (64, 64))]
    with torch.no_grad():
        together, alone = network.encode(images), network.encode(images[:2])
    torch.testing.assert_close(alone.padding_mask, together.padding_mask[:2])
    visible = ~alone.padding_mask
    torch.testing.assert_close(alone.memory[visible], together.memory[:2][visible], rtol=1e-3, atol=1e-4)


def test_training_follows_inference_mode(device: torch.device) -> None:
    """What inference mode has computed must not reach the backward pass."""
    model = tiny_model().to(device)
    clip = two_moving_squares()
    with torch.inference_mode():
        model([{"image": clip["image"]}])
    losses = model.train()([clip])
    sum(losses.values()).backward()
