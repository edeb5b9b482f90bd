"""Several videos, one after the other or shared out over the processes of ``torchrun``."""

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
from seqformer.errors import InputError
from seqformer.video import PICTURE_SUFFIXES

__all__ = ["Share", "several_videos", "shared_out", "targets_of"]

_LONGEST = timedelta(days=365)  # that a process waits for the others' videos


def several_videos(inputs: Sequence[str]) -> list[Path]:
    """The videos that are meant where several are: by their names, or by a glob pattern; else none.

    Pictures are frames of one video, so names or patterns of pictures are no videos.
    """
    is_pattern = [glob.has_magic(name) and not os.path.exists(name) for name in inputs]
    paths: list[Path] = []
    for name, pattern in zip(inputs, is_pattern, strict=True):
        paths += sorted(map(Path, glob.glob(name))) if pattern else [Path(name)]
    if any(path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES for path in paths):
        return []
    return list(dict.fromkeys(paths)) if len(paths) > 1 or any(is_pattern) else []


def targets_of(videos: Sequence[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Every video with the .mp4 that is made of it.

    Raises:
        InputError: if ``folder`` is no folder, has the videos themselves, or two videos have one name.
    """
    if folder.suffix.lower() == ".mp4" or folder.is_file():
        raise InputError(f"--output '{folder}': name a folder, for there are {len(videos)} videos")
    targets: dict[Path, Path] = {}
    for video in videos:
        target = folder / f"{video.stem}.mp4"
        if target in targets:
            raise InputError(f"'{targets[target]}' and '{video}' would both become '{target}': rename one")
        if target.exists() and target.samefile(video):
            raise InputError(f"--output '{folder}' has the input '{video}' in it: choose another folder")
        targets[target] = video
    return [(video, target) for target, video in targets.items()]


@dataclass
class Share:
    """Which part of the work is this process's.

    Attributes:
        rank, count: the process's number, from 0, and how many there are.
        local_rank: its number on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    def run(
        self, targets: Sequence[tuple[Path, Path]], track: Callable[[Path, Path], None]
    ) -> list[tuple[Path, str]]:
        """Tracks this process's videos, those aside that are done. Returns all processes' failures.

        Under torchrun it waits for the other processes, which torchrun would end if this one ended first with
        a failure. Failures are returned to all, and told by the first alone.
        """
        failures: list[tuple[Path, str]] = []
        for video, target in targets[self.rank :: self.count]:
            if _is_done(target):
                print(f"{target} is there: skipped")
                continue
            try:
                track(video, target)
            except InputError as error:
                failures.append((video, " ".join(str(error).splitlines())))
            except Exception as error:  # a video that breaks a library must not stop the rest, either
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
    """This process's share; without torchrun everything."""
    if not started_by_torchrun():
        yield Share()
        return
    dist.init_process_group("gloo", timeout=_LONGEST)
    yield Share(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    # Not after an error: other processes may wait for this one, and torchrun ends them all.
    dist.destroy_process_group()


def _is_done(target: Path) -> bool:
    unfinished = target.with_name(target.name + ".unfinished")
    return target.is_file() and target.with_suffix(".json").is_file() and not unfinished.exists()
