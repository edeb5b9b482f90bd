"""The content of a video, before rendering.

All choices are made here, in units of the frame height, so a video is the same in every size. Places are x, y
relative to the frame's centre; times are in frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from seqformer.data.photo_vis.curves import Curve, Dice, sine
from seqformer.data.photo_vis.material import Material

__all__ = ["ASPECT", "SPLITS", "Actor", "Camera", "Post", "Rules", "Scene", "make_scene"]

ASPECT = 5.0 / 3.0  # width / height
_TRIES = 20  # paths tried until an instance is visible often enough
_STILL_ANGLE = 0.02  # turns

Place = tuple[float, float]


@dataclass(frozen=True)
class Rules:
    """Difficulty of the videos of a split.

    Attributes:
        length: number of frames, T.
        material: split of the photographs.
        kinds: fewest and most photographs in a video, not counting look-alikes.
        most: most instances in a video.
        look_alikes: probability that a photograph appears several times.
        copies: fewest and most copies of such a photograph.
        meetings: greatest number of planned full occlusions.
        posts: probability of each of two posts in front of everything.
        post_width: smallest and greatest width in frame heights.
    """

    length: int
    material: str
    kinds: tuple[int, int]
    most: int
    look_alikes: float
    copies: tuple[int, int]
    meetings: int
    posts: float
    post_width: tuple[float, float]


SPLITS = {
    "train": Rules(12, "train", (1, 4), 6, 0.3, (2, 3), 1, 0.15, (0.12, 0.4)),
    "val": Rules(36, "val", (1, 4), 6, 0.3, (2, 3), 1, 0.15, (0.12, 0.4)),
    "hard": Rules(36, "val", (2, 4), 8, 0.75, (2, 4), 3, 0.35, (0.3, 0.6)),
}


@dataclass
class Camera:
    """A hand-held camera over a photograph.

    Attributes:
        background: index of the photograph.
        x, y: centre of the view, in heights of the photograph.
        view: height of the view, in heights of the photograph.
        angle: rotation in turns.
    """

    background: int
    x: Curve
    y: Curve
    view: Curve
    angle: Curve

    def to_frame(self, point: Place, time: float) -> Place:
        """Returns the place in the frame of a point of the photograph."""
        view, angle = self.view(time), self.angle(time)
        dx, dy = (point[0] - self.x(time)) / view, (point[1] - self.y(time)) / view
        cos, sin = sine(angle + 0.25), sine(angle)
        return cos * dx + sin * dy, cos * dy - sin * dx


@dataclass
class Actor:
    """One instance.

    Attributes:
        cutout: index of the photograph.
        mirrored: whether left and right are swapped.
        gains: gains of red, green and blue, in 256ths.
        place: x, y of its centre, by time.
        size: longest side in frame heights, by time.
        angle: rotation in turns.
        turn: width as a fraction of the photograph's, as if turned about the vertical axis.
        bend: sideways bend of both ends, as a fraction of the length.
    """

    cutout: int
    mirrored: bool
    gains: tuple[int, int, int]
    place: Callable[[float], Place]
    size: Callable[[float], float]
    angle: Curve
    turn: Curve
    bend: Curve


@dataclass
class Post:
    """A vertical strip of another photograph in front of the instances, which is not annotated.

    Attributes:
        background: index of the photograph from which it is cut.
        corner: corner of the strip, as fractions of the photograph's width and height.
        x: x of its centre, by time.
        width: width in frame heights.
    """

    background: int
    corner: Place
    x: Callable[[float], float]
    width: float


@dataclass
class Scene:
    """A video.

    Attributes:
        length: number of frames, T.
        actors: instances from back to front.
        brightness: factor of the photographs' brightness, by time.
        blurred: whether the frames have motion blur.
    """

    length: int
    camera: Camera
    actors: list[Actor]
    posts: list[Post]
    brightness: Curve
    blurred: bool
    labels: list[int] = field(default_factory=list)


@dataclass
class _Path:
    """Path of one instance, relative to the frame or to the background."""

    x: Curve
    y: Curve
    anchor: Place | None = None  # in heights of the photograph

    def place(self, camera: Camera, time: float) -> Place:
        x, y = self.x(time), self.y(time)
        if self.anchor is None:
            return x, y
        seen = camera.to_frame(self.anchor, time)
        return seen[0] + x, seen[1] + y


def make_scene(material: Material, rules: Rules, seed: str) -> Scene:
    """Returns the scene for a seed.

    Args:
        material: photographs of the split.
        rules: a value of :data:`SPLITS`.
        seed: any text.
    """
    dice = Dice(seed)
    camera = _camera(dice, material, rules.length)
    cutouts = _cast(dice, material, rules)
    speed = dice.choice((7.0, 10.0, 14.0))
    paths = [_path(dice, camera, rules, speed) for _ in cutouts]
    sizes = _sizes(dice, material, cutouts)
    for _ in range(rules.meetings if len(cutouts) > 1 else 0):
        if dice.chance(0.6):
            _meet(dice, rules, paths, sizes)
    actors = [
        _actor(dice, camera, rules, cutout, path, size)
        for cutout, path, size in zip(cutouts, paths, sizes, strict=True)
    ]
    order = sorted(range(len(actors)), key=lambda index: sizes[index] * dice.uniform(0.8, 1.2))
    posts = [_post(dice, material, camera, rules) for _ in range(2) if dice.chance(rules.posts)]
    low, high = (0.6, 1.3) if dice.chance(0.5) else (0.95, 1.05)
    level = dice.uniform(0.8, 1.1)
    brightness = Curve.random(dice, rules.length, dice.uniform(4.0, 12.0), low * level, high * level)
    return Scene(
        rules.length,
        camera,
        [actors[index] for index in order],
        posts,
        brightness,
        blurred=dice.chance(0.3),
        labels=[material.cutouts[cutouts[index]].label for index in order],
    )


def _camera(dice: Dice, material: Material, length: int) -> Camera:
    background = dice.integer(0, len(material.backgrounds) - 1)
    photograph = material.background(background)
    ratio = photograph.width / photograph.height
    view = dice.uniform(0.35, min(0.8, 0.85 * ratio / ASPECT))
    zoom = dice.uniform(0.0, 0.12)
    largest = view * (1.0 + zoom)
    step = dice.uniform(6.0, 14.0)
    reach = dice.uniform(0.0, 0.5) * view  # movement of the hand
    margins = (0.5 * largest * ASPECT, 0.5 * largest)
    curves = []
    for extent, margin in zip((ratio, 1.0), margins, strict=True):
        center = dice.uniform(margin, extent - margin)
        low, high = max(center - reach, margin), min(center + reach, extent - margin)
        curves.append(Curve.random(dice, length, step, low, high))
    x, y = curves
    return Camera(
        background,
        x,
        y,
        Curve.random(dice, length, step, view * (1.0 - zoom), largest),
        Curve.random(dice, length, step, -_STILL_ANGLE, _STILL_ANGLE),
    )


def _cast(dice: Dice, material: Material, rules: Rules) -> list[int]:
    """Chooses the cut-outs of the instances, with equal odds for classes, and copies as look-alikes."""
    cast: list[int] = []
    for _ in range(dice.integer(*rules.kinds)):
        cutout = dice.choice(dice.choice(material.by_class))
        copies = dice.integer(*rules.copies) if dice.chance(rules.look_alikes) else 1
        cast += [cutout] * copies
    return cast[: rules.most]


def _sizes(dice: Dice, material: Material, cutouts: list[int]) -> list[float]:
    sizes: dict[int, float] = {}
    for cutout in cutouts:
        if cutout not in sizes:
            longest = max(material.cutout(cutout).size)
            sizes[cutout] = min(dice.uniform(0.25, 0.8), longest / 140.0)  # small photographs stay small
    return [sizes[cutout] * dice.uniform(0.85, 1.15) for cutout in cutouts]


def _path(dice: Dice, camera: Camera, rules: Rules, speed: float) -> _Path:
    for _ in range(_TRIES):
        path = _any_path(dice, camera, rules.length, speed * dice.uniform(0.8, 1.3))
        inside = sum(_inside(path.place(camera, float(t))) for t in range(rules.length))
        if inside >= rules.length // 3:
            break
    return path


def _inside(place: Place) -> bool:
    return abs(place[0]) < 0.5 * ASPECT and abs(place[1]) < 0.5


def _any_path(dice: Dice, camera: Camera, length: int, step: float) -> _Path:
    count = Curve.count(length, step)
    wide, high = 0.5 * ASPECT, 0.5
    kind = dice.uniform(0.0, 1.0)
    if kind < 0.25:  # rests on the background, or nearly
        time = dice.uniform(0.0, length)
        at = (dice.uniform(-0.9, 0.9) * wide, dice.uniform(-0.8, 0.8) * high)
        view = camera.view(time)
        anchor = (camera.x(time) + at[0] * view, camera.y(time) + at[1] * view)
        sway = dice.choice((0.0, 0.05))
        x, y = (Curve.random(dice, length, step, -sway, sway) for _ in range(2))
        return _Path(x, y, anchor)
    if kind < 0.6:  # roams
        return _Path(
            Curve.random(dice, length, step, -wide, wide), Curve.random(dice, length, step, -high, high)
        )
    ys = [dice.uniform(-0.8, 0.8) * high]
    for _ in range(count - 1):
        ys.append(min(max(ys[-1] + dice.uniform(-0.2, 0.2), -high), high))
    if kind < 0.85:  # crosses from one side to the other, starting inside or outside
        start, end = dice.uniform(-1.6, -0.3) * wide, dice.uniform(0.3, 1.6) * wide
        side = dice.choice((-1.0, 1.0))
        xs = [side * (start + (end - start) * index / (count - 1)) for index in range(count)]
    else:  # leaves and comes back
        side = dice.choice((-1.0, 1.0))
        away = dice.integer(1, max(count - 3, 1))
        xs = [
            side * wide * (1.7 if away <= index < away + 2 else dice.uniform(-0.5, 0.7))
            for index in range(count)
        ]
    return _Path(Curve(xs, step), Curve(ys, step))


def _meet(dice: Dice, rules: Rules, paths: list[_Path], sizes: list[float]) -> None:
    """Leads one instance behind a larger one: their paths share a part and then separate."""
    first = dice.integer(0, len(paths) - 1)
    second = (first + dice.integer(1, len(paths) - 1)) % len(paths)
    behind, front = sorted((first, second), key=lambda index: sizes[index])
    sizes[behind] = min(sizes[behind], 0.75 * sizes[front])
    step = paths[front].x.step
    count = Curve.count(rules.length, step)
    shared = dice.integer(1, max(count - 4, 1))
    for axis in ("x", "y"):
        leader = getattr(paths[front], axis)
        own = Curve.random(dice, rules.length, step, -0.5, 0.5)
        spread = ASPECT if axis == "x" else 0.9
        # With three control values in common, both are at the same place at one moment.
        points = [
            leader.points[index] if shared <= index < shared + 3 else spread * own.points[index]
            for index in range(count)
        ]
        setattr(paths[behind], axis, Curve(points, step))
    paths[behind].anchor = paths[front].anchor


def _actor(dice: Dice, camera: Camera, rules: Rules, cutout: int, path: _Path, size: float) -> Actor:
    length, step = rules.length, dice.uniform(4.0, 12.0)
    upright, swing = dice.uniform(-0.08, 0.08), dice.choice((0.0, 0.03, 0.1))
    if dice.chance(0.15):
        upright, swing = dice.uniform(-0.5, 0.5), dice.choice((0.1, 0.3))
    narrow = dice.choice((1.0, 0.85, 0.6))
    bent = dice.choice((0.0, 0.08, 0.16))
    growth = dice.choice((0.05, 0.15, 0.3))
    scale = Curve.random(dice, length, step, 1.0 - growth, 1.0 + growth)
    view = camera.view(0.0)
    anchored = path.anchor is not None
    light = dice.uniform(0.75, 1.15)
    mirrored = dice.chance(0.5)
    red, green, blue = (int(256.0 * light * dice.uniform(0.92, 1.08)) for _ in range(3))
    return Actor(
        cutout,
        mirrored,
        gains=(red, green, blue),
        place=lambda time: path.place(camera, time),
        size=lambda time: size * scale(time) * (view / camera.view(time) if anchored else 1.0),
        angle=Curve.random(dice, length, step, upright - swing, upright + swing),
        turn=Curve.random(dice, length, step, narrow, 1.0),
        bend=Curve.random(dice, length, step, -bent, bent),
    )


def _post(dice: Dice, material: Material, camera: Camera, rules: Rules) -> Post:
    anchor = camera.x(0.0) + dice.uniform(-0.45, 0.45) * ASPECT * camera.view(0.0)
    parallax = dice.uniform(1.0, 1.8)  # near objects move faster than the background
    return Post(
        dice.integer(0, len(material.backgrounds) - 1),
        (dice.uniform(0.0, 0.6), dice.uniform(0.0, 0.3)),
        x=lambda time: parallax * (anchor - camera.x(time)) / camera.view(time),
        width=dice.uniform(*rules.post_width),
    )
