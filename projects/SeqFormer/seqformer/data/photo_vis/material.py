"""The photographs: their list, classes and splits, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from seqformer.errors import InputError

__all__ = ["CLASSES", "PACKAGES", "Cutout", "Material"]

PACKAGES = (
    "tuxpaint-stamps-default",
    "lomiri-wallpapers-16.04",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
)
CLASSES = (
    "bird",
    "mammal",
    "fish_shell",
    "bug",
    "fruit_nut",
    "vegetable_mushroom",
    "flower",
    "vehicle",
    "household",
)
_STAMPS = "usr/share/tuxpaint/stamps"
_FOLDER = Path(__file__).parent
_BACKGROUND_ROWS = 1600  # enough for the closest view in a frame of 480 rows


@dataclass(frozen=True)
class Cutout:
    """A photograph of one object.

    Attributes:
        path: path in the folder of stamps, without the suffix.
        label: index in :data:`CLASSES`.
        individual: the same for all photographs of one object.
        split: "train" or "val".
    """

    path: str
    label: int
    individual: str
    split: str


class Material:
    """The photographs of one split.

    Args:
        root: the folder with the unpacked packages, which contains ``usr``.
        split: "train" or "val".
        cutouts, backgrounds: replace the package's lists, in the same format; paths of backgrounds are
            relative to ``root``.

    Raises:
        InputError: if photographs are missing.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        cutouts: Sequence[Cutout] | None = None,
        backgrounds: Sequence[str] | None = None,
    ):
        self.root = Path(root)
        chosen = _listed_cutouts() if cutouts is None else cutouts
        self.cutouts = [cutout for cutout in chosen if cutout.split == split]
        self.backgrounds = _listed_backgrounds(split) if backgrounds is None else list(backgrounds)
        files = [self._file(cutout) for cutout in self.cutouts] + [self.root / f for f in self.backgrounds]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(
                f"no file '{missing[0]}'{f' and {len(missing) - 1} more' if missing[1:] else ''}: unpack the "
                f"Debian 12 packages {', '.join(PACKAGES)} into '{self.root}' (apt-get download NAME, "
                "dpkg -x FILE FOLDER)"
            )
        self._opened: dict[str, Image.Image] = {}

    @cached_property
    def by_class(self) -> list[list[int]]:
        """Returns the indices of cut-outs for each class that has any."""
        groups = [
            [index for index, cutout in enumerate(self.cutouts) if cutout.label == label]
            for label in range(len(CLASSES))
        ]
        return [group for group in groups if group]

    def _file(self, cutout: Cutout) -> Path:
        return self.root / _STAMPS / f"{cutout.path}.png"

    def cutout(self, index: int) -> Image.Image:
        """Returns a cut-out with premultiplied alpha (mode RGBa), without its transparent margin."""
        file = self._file(self.cutouts[index])
        if str(file) not in self._opened:
            image = _read(file).convert("RGBA")
            box = image.getchannel("A").point([255 * (alpha > 127) for alpha in range(256)]).getbbox()
            if box is None:
                raise InputError(f"'{file}' has no opaque pixel")
            self._opened[str(file)] = image.crop(box).convert("RGBa")
        return self._opened[str(file)]

    def background(self, index: int) -> Image.Image:
        """Returns a background (mode RGB), at most 3200 rows high."""
        file = self.root / self.backgrounds[index]
        if str(file) not in self._opened:
            image = _read(file).convert("RGB")
            self._opened[str(file)] = image.reduce(max(image.height // _BACKGROUND_ROWS, 1))
        return self._opened[str(file)]


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"'{file}' cannot be read: {error}") from error


def _lines(name: str) -> list[list[str]]:
    text = (_FOLDER / name).read_text(encoding="ascii")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def _listed_cutouts() -> list[Cutout]:
    return [
        Cutout(path, CLASSES.index(label), individual, split)
        for path, label, individual, split in _lines("cutouts.txt")
    ]


def _listed_backgrounds(split: str) -> list[str]:
    return [path for path, of in _lines("backgrounds.txt") if of == split]
