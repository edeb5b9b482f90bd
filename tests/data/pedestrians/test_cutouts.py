"""Tracks of people who meet: which tracks belong to the same person."""

from __future__ import annotations

import numpy as np
import pytest

from seqformer.data.pedestrians.cutouts import Blob, Perspective, Track, number_people


def walk(first: int, last: int, x: float, speed: float, foot: int = 100) -> Track:
    """A person 40 pixels tall in frames ``first`` to ``last``, with the left edge at ``x`` in frame 0."""
    track = Track()
    for frame in range(first, last + 1):
        left = round(x + speed * frame)
        box = (left, foot - 40, left + 14, foot)
        track.blobs.append(Blob(frame, box, np.ones((40, 14), bool)))
    return track


def people(*tracks: Track, blue: tuple[int, ...] = ()) -> list[int]:
    """Returns the person of each track; people wear red, or blue if listed in ``blue``."""
    frames = np.full((60, 160, 400, 3), 128, np.uint8)
    for number, track in enumerate(tracks):
        for blob in track.blobs:
            x0, y0, x1, y1 = blob.box
            frames[blob.frame, y0:y1, x0:x1] = (200, 30, 30) if number in blue else (30, 30, 200)
    return number_people(list(tracks), frames, Perspective(0.0, 40.0))


def test_people_who_meet_are_the_same_afterwards() -> None:
    """Two people cross while a third stands; every track ends and a new one begins."""
    right, left, standing = (0, 4), (160, -4), (300, 0)
    before = [walk(0, 12, *way) for way in (right, left, standing)]
    after = [walk(20, 32, *way) for way in (standing, right, left)]
    assert people(*before, *after) == [0, 1, 2, 2, 0, 1]


@pytest.mark.parametrize(
    "second",
    [
        walk(40, 50, 0, 4),  # too late
        walk(20, 32, 30, 4),  # too far ahead
        walk(20, 32, 160, -4),  # right place, but walking the other way
        walk(20, 32, 0, 4, foot=130),
        walk(9, 32, 0, 4),  # at the same time
    ],
)
def test_other_people_stay_separate(second: Track) -> None:
    assert people(walk(0, 12, 0, 4), second) == [0, 1]


def test_clothes_tell_people_apart() -> None:
    first, second = walk(0, 12, 0, 4), walk(20, 32, 0, 4)
    assert people(first, second, blue=(0, 1)) == [0, 0]
    assert people(first, second, blue=(0,)) == [0, 1]


def test_legs_behind_a_sign() -> None:
    """Hidden parts of a person have no colour; only visible parts are compared."""
    first, second = walk(0, 12, 0, 4), walk(20, 32, 0, 4)
    for blob in first.blobs:
        blob.mask[18:38] = False
    assert people(first, second) == [0, 0]


def test_two_meetings_of_one_person() -> None:
    assert people(*(walk(first, first + 10, 0, 3) for first in (28, 0, 14))) == [1, 1, 1]
    assert people() == []
