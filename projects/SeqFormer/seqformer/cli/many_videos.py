"""Processes several videos in turn, or distributes them over the processes of ``torchrun``."""

from __future__ import annotations

import glob
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from seqformer.engine import started_by_torchrun
from seqformer.errors import InputError, one_line
from seqformer.formats.files import PICTURE_SUFFIXES
from seqformer.video import origin_of, read_origin

__all__ = ["Share", "several_videos", "shared_out", "targets_of"]

_LONGEST = timedelta(days=365)  # a process waits for the videos of the others


def several_videos(inputs: Sequence[str]) -> list[Path]:
    """Returns the videos given by several file names or a glob pattern; empty if there is only one.

    Pictures are frames of a single video, so file names or patterns of pictures return no videos.
    """
    is_pattern = [glob.has_magic(name) and not os.path.exists(name) for name in inputs]
    paths: list[Path] = []
    for name, pattern in zip(inputs, is_pattern, strict=True):
        paths += sorted(map(Path, glob.glob(name))) if pattern else [Path(name)]
    if any(path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES for path in paths):
        return []
    return list(dict.fromkeys(paths)) if len(paths) > 1 or any(is_pattern) else []


def targets_of(videos: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Returns each video with the path of its output, an .mp4.

    Args:
        videos: the files.
        output: the folder for the results.

    Raises:
        InputError: if ``output`` is a file or contains one of the videos, or two videos have the same name.
    """
    if output.suffix.lower() == ".mp4" or output.is_file():
        raise InputError(f"`output` '{output}': must be a folder, because there are {len(videos)} videos")
    targets: dict[Path, Path] = {}
    for video in videos:
        target = output / f"{video.stem}.mp4"
        if target in targets:
            raise InputError(f"'{targets[target]}' and '{video}' have the same output '{target}': rename one")
        if target.exists() and target.samefile(video):
            raise InputError(f"`output` '{output}' contains the input '{video}': choose another folder")
        targets[target] = video
    return [(video, target) for target, video in targets.items()]


@dataclass
class Share:
    """This process's share of the videos.

    Attributes:
        rank: number of the process, from 0.
        count: number of processes.
        local_rank: number of the process on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    def run(
        self, targets: Sequence[tuple[Path, Path]], track: Callable[[Path, Path], None]
    ) -> list[tuple[Path, str]]:
        """Tracks this process's videos, except finished ones. A failure does not stop the others.

        Waits for the other processes, because torchrun ends all of them when one exits with a failure.

        Args:
            targets: all videos, each with the path of its output.
            track: tracks a video, given its path and the path of its output.

        Returns:
            The videos that failed in any process, with the reasons.
        """
        failures: list[tuple[Path, str]] = []
        for video, target in targets[self.rank :: self.count]:
            if _is_done(video, target):
                print(f"{target} exists: skipped")
                continue
            try:
                track(video, target)
            except InputError as error:
                failures.append((video, one_line(error)))
            except Exception as error:  # an error in one video must not stop the others
                traceback.print_exc()
                failures.append((video, f"{type(error).__name__}: {' '.join(str(error).split())}"))
            if failures and failures[-1][0] == video:
                print(f"failed: {video}: {failures[-1][1]}", file=sys.stderr)
        if self.count == 1:
            return failures
        everyone: list[list[tuple[Path, str]]] = [[] for _ in range(self.count)]
        dist.all_gather_object(everyone, failures)
        return sorted(failure for part in everyone for failure in part)


@contextmanager
def shared_out() -> Iterator[Share]:
    """Yields this process's share of the work. Without torchrun, that is all of it."""
    if not started_by_torchrun():
        yield Share()
        return
    dist.init_process_group("gloo", timeout=_LONGEST)
    yield Share(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    # Not after an error: other processes may be waiting for this one, and torchrun will end them.
    dist.destroy_process_group()


def _is_done(video: Path, target: Path) -> bool:
    unfinished = target.with_name(target.name + ".unfinished")
    whole = target.is_file() and target.with_suffix(".json").is_file() and not unfinished.exists()
    return whole and read_origin(target) == origin_of([video])
