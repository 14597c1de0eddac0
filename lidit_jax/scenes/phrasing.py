"""A scene in words: several phrasings, which differ in where an attribute is relative to its noun.

    adjectives  a small striped red circle and a blue star
    after       a circle, small, striped and red; a star, blue
    back        A circle and a star. The circle is small, striped and red; the star is blue.
    synthetic   The picture shows two things on a white background. First comes a circle, which
                is ...
    then        first a small striped red circle, and then a blue star
    chinese     一个小的条纹红色圆形和一个蓝色星形
    chinese_back    一个圆形和一个星形。圆形是小的、条纹的、红色的；星形是蓝色的。

`synthetic` is long and complete, like a captioning model's text; the others are like human
captions.
"""

from collections.abc import Callable, Sequence

from lidit_jax.scenes import things
from lidit_jax.scenes.things import Scene, Segment

NUMBERS = ("", "a", "two", "three", "four")
ORDINALS = ("First", "Second", "Third", "Fourth")
_CHINESE = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "cyan": "青色",
    "blue": "蓝色", "purple": "紫色", "grey": "灰色",
    "striped": "条纹", "dotted": "带点", "hollow": "空心", "small": "小", "big": "大",
    "circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形", "heart": "心形",
    "cross": "十字",
    "left of": "左边", "right of": "右边", "above": "上面", "below": "下面", "next to": "旁边",
}  # fmt: skip


def adjectives(scene: Scene) -> str:
    return _listed(scene, [_counted(s, _said(s)) for s in scene.segments])


def after(scene: Scene) -> str:
    parts = [f"{_counted(s)}, {_and(_said(s))}" for s in scene.segments]
    if scene.relation:
        parts.append(_where(scene))
    return "; ".join(parts)


def back(scene: Scene) -> str:
    listed = _listed(scene, [_counted(s) for s in scene.segments])
    told = [
        f"the {_noun(s)} {'are' if s.count > 1 else 'is'} {_and(_said(s))}" for s in scene.segments
    ]
    return f"{_sentence(listed)} {_sentence('; '.join(told))}"


def synthetic(scene: Scene) -> str:
    count = len(scene.things)
    total = "one thing" if count == 1 else f"{NUMBERS[count]} things"
    sentences = [f"The picture shows {total} on a white background."]
    for ordinal, s in zip(ORDINALS, scene.segments):
        comes, which = ("come", "which are") if s.count > 1 else ("comes", "which is")
        sentences.append(f"{ordinal} {comes} {_counted(s)}, {which} {_and(_said(s))}.")
    if scene.relation:
        sentences.append(_sentence(_where(scene)))
    return " ".join(sentences)


def then(scene: Scene) -> str:
    first, *others = [_counted(s, _said(s)) for s in scene.segments]
    if scene.relation:
        return f"{first}, and it is {scene.relation} {others[0]}"
    return ", and then ".join([f"first {first}", *others]) if others else f"nothing but {first}"


def chinese(scene: Scene) -> str:
    return _chinese_listed(scene, [_chinese_counted(s, _said(s)) for s in scene.segments])


def chinese_back(scene: Scene) -> str:
    listed = _chinese_listed(scene, [_chinese_counted(s) for s in scene.segments])
    told = [
        f"{_CHINESE[s.thing.shape]}是{'、'.join(_CHINESE[v] + '的' for v in _said(s))}"
        for s in scene.segments
    ]
    return f"{listed}。{'；'.join(told)}。"


PHRASINGS: dict[str, dict[str, Callable[[Scene], str]]] = {
    "en": {"adjectives": adjectives, "after": after, "back": back, "synthetic": synthetic},
    "zh": {"chinese": chinese, "chinese_back": chinese_back},
}
HELD_OUT: dict[str, Callable[[Scene], str]] = {"then": then}  # never used in training


def _said(segment: Segment) -> list[str]:
    return list(segment.thing.said.values())


def _counted(segment: Segment, adjectives: Sequence[str] = ()) -> str:
    """Returns "a small red circle" or "two stars"."""
    words = [*adjectives, _noun(segment)]
    article = "an" if segment.count == 1 and words[0][0] in "aeiou" else NUMBERS[segment.count]
    return " ".join([article, *words])


def _noun(segment: Segment) -> str:
    if segment.count == 1:
        return segment.thing.shape
    return segment.thing.shape + ("es" if segment.thing.shape == "cross" else "s")


def _listed(scene: Scene, named: Sequence[str]) -> str:
    return f" {scene.relation} ".join(named) if scene.relation else _and(named)


def _where(scene: Scene) -> str:
    first, second = (s.thing.shape for s in scene.segments)
    return f"the {first} is {scene.relation} the {second}"


def _and(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _chinese_counted(segment: Segment, adjectives: Sequence[str] = ()) -> str:
    words = [f"{_CHINESE[w]}的" if w in things.SIZES else _CHINESE[w] for w in adjectives]
    return f"{'一两三四'[segment.count - 1]}个{''.join(words)}{_CHINESE[segment.thing.shape]}"


def _chinese_listed(scene: Scene, named: Sequence[str]) -> str:
    if scene.relation:
        return f"{named[0]}在{named[1]}的{_CHINESE[scene.relation]}"
    *others, last = named
    return f"{'、'.join(others)}和{last}" if others else last
