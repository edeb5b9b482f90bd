"""YouTube-VIS results.json: a list with one entry per predicted instance and category."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqformer.errors import InputError
from seqformer.formats.checks import as_integer, is_integer, is_number, named, quoted
from seqformer.formats.files import read_content, replaced_when_complete
from seqformer.formats.ytvis import Video, parse_segmentations
from seqformer.structures import RLE

__all__ = [
    "Result",
    "best_categories",
    "read_results",
    "write_results",
    "write_submission",
]


@dataclass
class Result:
    """A checked entry of results.json: a predicted instance with one category.

    Attributes:
        category: id in the dataset.
        masks: one for each frame of the video; None where there is none. Results in succession with equal
            masks, as an instance with several categories has, share this list.
    """

    video: Video
    category: int
    score: float
    masks: list[RLE | None]


def read_results(
    results: list[dict[str, Any]] | str | Path,
    videos: Mapping[int, Video],
    categories: Collection[int] | None = None,
    *,
    dataset: str = "the dataset",
    video_id: int | None = None,
) -> Iterator[Result]:
    """Reads results one by one, in the order of the file.

    Args:
        results: a results.json or its content.
        videos: the dataset's videos by id.
        categories: valid category ids; None allows all.
        dataset: the name of the dataset in messages.
        video_id: read and check the results of this video only.

    Raises:
        InputError: if something is missing or malformed; the message names file, video, result and frame.
            With ``video_id``, if this video has no results but videos outside ``videos`` have.
    """
    results, source = read_content(results, "results")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise InputError(f"{source}: not a list of objects, one for each predicted instance")
    if video_id is not None:
        present = {id_ for result in results if is_integer(id_ := as_integer(result.get("video_id")))}
        if video_id not in present and not present <= videos.keys():
            known = ", ".join(map(str, sorted(present)[:10]))
            raise InputError(f"{source}: no results for video {video_id}; there are results for: {known}")
    seen: dict[str, list[RLE | None]] = {}  # masks of a video by their content, so that each is checked once
    seen_video = None
    for index, result in enumerate(results):
        video, category = (as_integer(result.get(key)) for key in ("video_id", "category_id"))
        score = result.get("score")
        if video_id is not None and video != video_id:
            continue
        where = f"{source}: video {named(video)}, result {index}"
        for key, value in (("video_id", video), ("category_id", category)):
            if not is_integer(value):
                raise InputError(f"{where}: '{key}' must be an integer, not {quoted(value)}")
        if video not in videos:
            raise InputError(f"{where}: there is no video {named(video)} in {dataset}")
        if categories is not None and category not in categories:
            raise InputError(f"{where}: there is no category {named(category)} in {dataset}")
        if not is_number(score):
            raise InputError(f"{where}: 'score' must be a finite number, not {quoted(score)}")
        if video != seen_video:
            seen, seen_video = {}, video
        segmentations = result.get("segmentations")
        try:
            content = repr(segmentations)
        except RecursionError:
            raise InputError(f"{where}: 'segmentations' is nested too deep") from None
        if content not in seen:
            seen[content] = parse_segmentations(segmentations, videos[video], where)
        yield Result(videos[video], category, float(score), seen[content])


def best_categories(results: Iterable[Result]) -> list[Result]:
    """Keeps the best category of each instance only, in the order of first appearance.

    Results with equal masks are treated as one instance with several categories.
    """
    best: dict[tuple[Any, ...], Result] = {}
    for result in results:
        key = (result.video.id, *(mask and mask["counts"] for mask in result.masks))
        if key not in best or best[key].score < result.score:
            best[key] = result
    return list(best.values())


def write_results(path: str | Path, results: Iterable[dict[str, Any]]) -> None:
    """Writes results.json atomically, one entry at a time.

    Raises:
        InputError: if the file cannot be written.
    """
    with replaced_when_complete(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write("[")
        for number, result in enumerate(results):
            file.write((", " if number else "") + json.dumps(result))
        file.write("]")


def write_submission(path: str | Path, results_json: str | Path) -> None:
    """Writes a zip file for the evaluation servers, with results.json at its root and nothing else.

    Raises:
        InputError: if the file cannot be written.
    """
    with (
        replaced_when_complete(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.write(results_json, "results.json")
