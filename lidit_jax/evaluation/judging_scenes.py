"""Does a picture of the scenes world match its prompt, in every segment and attribute?"""

import dataclasses
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from lidit_jax.evaluation.seeing_scenes import Seen, see
from lidit_jax.scenes.things import RELATIONS, Scene, Thing

ATTRIBUTES = ("shape", "colour", "texture", "size")
_WEIGHTS = np.array(
    [8, 4, 2, 1]
)  # of ATTRIBUTES, when matching things in the picture with things in the prompt
_NOTHING = Seen(None, None, "", "", 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Which parts of a prompt are right in a picture.

    segments: for each, whether each of the ATTRIBUTES that it mentions is right for all of its
      things; "exact" is whether they look right in every respect, including attributes that are not
      mentioned (plain, grey and big).
    count: the number of things is right. place: the relation holds; None = the prompt has none.
    """

    segments: tuple[dict[str, bool], ...]
    count: bool
    place: bool | None

    @property
    def all_correct(self) -> bool:
        return self.count and self.place is not False and all(s["exact"] for s in self.segments)

    def to_json(self) -> dict[str, Any]:
        told = {"segments": list(self.segments), "count": self.count, "place": self.place}
        return told | {"all_correct": self.all_correct}


def judge(image: np.ndarray, scene: Scene) -> Verdict:
    """Compares uint8 [height, width, 3] with the scene.

    Each thing of the scene is matched with a different thing of the picture, so that as much as
    possible is right, shapes before colours: if a red circle and a blue star are wanted and the
    colours are swapped, both colours are wrong.
    """
    found, wanted = see(image), scene.things
    right_WxFxA = np.array([[_right(f, w) for f in found] for w in wanted], bool)
    matched = [_NOTHING] * len(wanted)
    if found:
        rows, columns = linear_sum_assignment(right_WxFxA @ _WEIGHTS, maximize=True)
        for row, column in zip(rows, columns):
            matched[row] = found[column]
    segments, start = [], 0
    for segment in scene.segments:
        those = matched[start : start + segment.count]
        segments.append(_verdict(those, segment.thing))
        start += segment.count
    return Verdict(tuple(segments), len(found) == len(wanted), _place(scene, matched))


def _right(seen: Seen, thing: Thing) -> list[bool]:
    """Returns, for each of ATTRIBUTES, whether the seen thing looks as it should."""
    return [getattr(seen, a) == getattr(thing.looks, a) for a in ATTRIBUTES]


def _verdict(those: list[Seen], thing: Thing) -> dict[str, bool]:
    every = dict(zip(ATTRIBUTES, np.all([_right(s, thing) for s in those], axis=0).tolist()))
    said = ("shape", *thing.said)
    return {a: every[a] for a in ATTRIBUTES if a in said} | {"exact": all(every.values())}


def _place(scene: Scene, matched: list[Seen]) -> bool | None:
    """Whether the relation holds between things of the right shapes; None without a relation."""
    if not scene.relation:
        return None
    if [s.shape for s in matched] != [t.shape for t in scene.things]:
        return False
    step = np.array([matched[0].x - matched[1].x, matched[0].y - matched[1].y])
    if scene.relation == "next to":
        return bool(abs(step[0]) > abs(step[1]))
    ways = {name: way for name, way in RELATIONS.items() if name != "next to"}
    return scene.relation == max(ways, key=lambda name: step @ ways[name])
