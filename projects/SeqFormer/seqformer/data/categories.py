"""Categories of the published datasets: ids, names, colours, and their counterparts in COCO."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATEGORIES", "COCO_TO", "Category"]


@dataclass(frozen=True)
class Category:
    """A category as in the dataset's JSON.

    Attributes:
        id: counts from 1.
        color: red, green and blue, 0 to 255.
    """

    id: int
    name: str
    color: tuple[int, int, int]


def _table(text: str) -> tuple[Category, ...]:
    categories = []
    for number, entry in enumerate(text.split(), start=1):
        name, color = entry.split(":")
        red, green, blue = bytes.fromhex(color)
        categories.append(Category(number, name, (red, green, blue)))
    return tuple(categories)


# name:colour, in order of ids
CATEGORIES = {
    "ytvis_2019": _table(
        "person:dc143c giant_panda:005200 lizard:770b20 parrot:a52a2a skateboard:868667 sedan:00008e "
        "ape:ff6d41 dog:00e2fc snake:057900 monkey:003c64 hand:faaa1e rabbit:64aa1e duck:b300c2 cat:ff4dff "
        "cow:78a69d fish:494dae train:005064 horse:b6b6ff turtle:008f95 bear:ae39ff motorbike:0000e6 "
        "giraffe:480076 leopard:ffb3f0 fox:007d5c deer:d10097 owl:bcd0b6 surfboard:9194ae airplane:6a00e4 "
        "truck:000046 zebra:c76400 tiger:a6c466 elephant:6e4c00 snowboard:8581ff boat:0000c0 shark:b78258 "
        "mouse:827287 frog:6b8e23 eagle:00e400 earless_seal:aefff3 tennis_racket:ffd0ba"
    ),
    "ytvis_2021": _table(
        "airplane:6a00e4 bear:ae39ff bird:ff6d41 boat:0000c0 car:00008e cat:ff4dff cow:78a69d deer:d10097 "
        "dog:00e2fc duck:b300c2 earless_seal:aefff3 elephant:6e4c00 fish:494dae flying_disc:faaa1e "
        "fox:007d5c frog:6b8e23 giant_panda:005200 giraffe:480076 horse:b6b6ff leopard:ffb3f0 lizard:770b20 "
        "monkey:003c64 motorbike:0000e6 mouse:827287 parrot:a52a2a person:dc143c rabbit:64aa1e shark:b78258 "
        "skateboard:868667 snake:057900 snowboard:8581ff squirrel:bcd0b6 surfboard:9194ae "
        "tennis_racket:ffd0ba tiger:a6c466 train:005064 truck:000046 turtle:008f95 whale:00e400 zebra:c76400"
    ),
    "ovis": _table(
        "Person:dc143c Bird:ff6d41 Cat:ff4dff Dog:00e2fc Horse:b6b6ff Sheep:007d5c Cow:78a69d "
        "Elephant:6e4c00 Bear:ae39ff Zebra:c76400 Giraffe:480076 Poultry:b300c2 Giant_panda:005200 "
        "Lizard:770b20 Parrot:a52a2a Monkey:003c64 Rabbit:64aa1e Tiger:a6c466 Fish:494dae Turtle:008f95 "
        "Bicycle:868667 Motorcycle:0000e6 Airplane:6a00e4 Boat:0000c0 Vehical:000046"
    ),
}

# COCO category id -> the dataset's, for categories that both have
COCO_TO = {
    "ytvis_2019": {1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18, 21: 15}
    | {22: 32, 23: 20, 24: 30, 25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40},
    "ytvis_2021": {1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9, 19: 19, 21: 7}
    | {22: 12, 23: 2, 24: 40, 25: 18, 34: 14, 35: 31, 36: 31, 41: 29, 42: 33, 43: 34},
    "ovis": {1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 17: 3, 18: 4, 19: 5, 20: 6, 21: 7}
    | {22: 8, 23: 9, 24: 10, 25: 11},
}
