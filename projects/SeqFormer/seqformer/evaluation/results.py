"""results.json of YouTube-VIS, a list with an entry for every instance found, and its submission."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqformer.data.files import replaced_when_complete, write_json
from seqformer.structures import VideoResult

__all__ = ["tracklets_to_results", "write_results", "write_submission"]


def tracklets_to_results(
    video: VideoResult, video_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Entries of results.json for one video.

    Args:
        video: what was found.
        video_id: the video's id in the dataset.
        category_ids: the dataset's category id of every contiguous class.

    Returns:
        dicts with video_id, category_id, score and segmentations (an RLE or None for every frame).

    Raises:
        InputError: if the model has a class that the dataset has not.
    """
    return video.to_json(video_id, category_ids)


def write_results(path: str | Path, results: list[dict[str, Any]]) -> None:
    """Writes results.json; under its name there is never a half-written file.

    Raises:
        InputError: if it cannot be written.
    """
    write_json(path, results)


def write_submission(path: str | Path, results_json: str | Path) -> None:
    """Writes the zip file that the evaluation servers take: results.json alone, at its root.

    Raises:
        InputError: if it cannot be written.
    """
    with (
        replaced_when_complete(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.write(results_json, "results.json")
