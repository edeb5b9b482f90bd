"""Folders of pictures are new, and complete or empty."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from videos import frames

from seqformer.errors import InputError
from seqformer.video import FrameFolderWriter


def test_folder_of_frames(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "a", tmp_path / "empty"):
        with FrameFolderWriter(folder) as writer:
            for frame in frames(3):
                writer.write(frame)
        assert sorted(file.name for file in folder.iterdir()) == ["00000.jpg", "00001.jpg", "00002.jpg"]
        found = np.asarray(Image.open(folder / "00002.jpg")).astype(int)
        assert np.abs(found - frames(3)[2]).mean() < 2


def test_folder_that_is_not_empty(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"), FrameFolderWriter(tmp_path):
        pytest.fail("entered")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
