"""What happens in a video, before anything is drawn.

All choices are made here, in heights of the frame, so a video is the same in every size. Places are x, y
relative to the frame's centre; times are in frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from seqformer.data.photo_vis.curves import Curve, Dice, sine
from seqformer.data.photo_vis.material import Material

__all__ = ["ASPECT", "SPLITS", "Actor", "Camera", "Post", "Rules", "Scene", "make_scene"]

ASPECT = 5.0 / 3.0  # width / height
_TRIES = 20  # paths drawn until an instance is seen often enough
_STILL_ANGLE = 0.02  # turns

Place = tuple[float, float]


@dataclass(frozen=True)
class Rules:
    """How hard the videos of a split are.

    Attributes:
        length: frames, T.
        material: split of the photographs.
        kinds: fewest and most photographs in a video; look-alikes come on top.
        most: instances in a video.
        look_alikes: probability that a photograph is there several times.
        copies: fewest and most of them.
        meetings: greatest number of planned full occlusions.
        posts: probability of each of two posts in front of everything.
        post_width: narrowest and widest, frame heights.
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
        angle: turns.
    """

    background: int
    x: Curve
    y: Curve
    view: Curve
    angle: Curve

    def to_frame(self, point: Place, time: float) -> Place:
        """Where a point of the photograph is seen."""
        view, angle = self.view(time), self.angle(time)
        dx, dy = (point[0] - self.x(time)) / view, (point[1] - self.y(time)) / view
        cos, sin = sine(angle + 0.25), sine(angle)
        return cos * dx + sin * dy, cos * dy - sin * dx


@dataclass
class Actor:
    """One instance.

    Attributes:
        cutout: index of the photograph.
        mirrored: left and right exchanged.
        gains: of red, green and blue, in 256ths.
        place: x, y of its centre at a time.
        size: longest side, in frame heights.
        angle: turns.
        turn: width as a share of the photograph's, as if turned about the upright axis.
        bend: how far both ends are bent sideways, as a share of the length.
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
    """An upright piece of another photograph in front of the instances, which nobody annotates.

    Attributes:
        background: index of the photograph that it is cut from.
        corner: of the piece, as shares of the photograph's width and height.
        x: of its centre at a time.
        width: frame heights.
    """

    background: int
    corner: Place
    x: Callable[[float], float]
    width: float


@dataclass
class Scene:
    """A video.

    Attributes:
        length: frames, T.
        actors: those in front come later.
        brightness: at a time; 1 is the photographs'.
        blurred: whether the shutter is open for a part of each frame.
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
    """Where one instance goes: relative to the frame, or fixed to the background."""

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
    """The scene of a seed.

    Args:
        material: photographs of the split.
        rules: of :data:`SPLITS`.
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
    reach = dice.uniform(0.0, 0.5) * view  # how far the hand moves
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
    """Cut-outs of the instances: classes equally often, the same photograph several times if so drawn."""
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
    if kind < 0.25:  # rests on the background, or nearly so
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
    if kind < 0.85:  # goes from one side to the other, from outside or not
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
    """Leads one instance behind a larger one: their paths share a part, and go on apart."""
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
        # Three control values in common are one instant in which both are at the same place.
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
    parallax = dice.uniform(1.0, 1.8)  # a near thing moves faster than the background
    return Post(
        dice.integer(0, len(material.backgrounds) - 1),
        (dice.uniform(0.0, 0.6), dice.uniform(0.0, 0.3)),
        x=lambda time: parallax * (anchor - camera.x(time)) / camera.view(time),
        width=dice.uniform(*rules.post_width),
    )
