"""The source of drawings: names tell them apart and say what is drawn, trimmed or not."""

import numpy as np
import pytest

from lidit_jax.data import sources
from lidit_jax.data.sources import openmoji
from tests.tiny_sources import every


@pytest.fixture(scope="module")
def both():
    return {s: every("openmoji", subset=s, languages=("en", "zh")) for s in ("learnable", "all")}


def test_openmoji_without_flags_lacks_nothing_else(both):
    with_flags = [e.captions[0].text for e in both["learnable"]]
    without = [e.captions[0].text for e in every("openmoji", flags=False)]
    assert without == [t for t in with_flags if not t.startswith("flag of ")]
    assert 0 < len(without) < len(with_flags)


def test_openmoji_learnable_is_a_plain_part_of_all(both):
    keys = {e.key for e in both["learnable"]}
    assert keys < {e.key for e in both["all"]}
    assert 700 <= len(keys) <= 800 and len(both["all"]) > 3900
    assert not any("-200D-" in k or "-1F3F" in k for k in keys)
    for span in openmoji.LEARNABLE.values():  # every line of the table names drawings
        assert any(k.startswith(span.split()[0].split("-")[0]) for k in keys), span


def test_openmoji_captions_tell_pictures_apart(both):
    for examples in both.values():
        texts = [c.text for e in examples for c in e.captions]
        assert len(set(texts)) == len(texts) == 2 * len(examples)
        assert all([c.language for c in e.captions] == ["en", "zh"] for e in examples)


def test_openmoji_names_what_is_drawn(both):
    found = {e.captions[0].text: e for e in both["learnable"]}
    for text, chinese, rgb in (
        ("red heart", "红心", (210, 47, 39)),
        ("purple circle", "紫色圆", (138, 102, 173)),
        ("black flag", "黑旗", None),
        ("flag of England", "英格兰旗帜", None),
        ("flag of Poland", "波兰旗帜", None),
    ):
        assert found[text].captions[1].text == chinese
        if rgb:
            centre = found[text].picture.pixels(64, 64)[32, 32].astype(int)
            assert np.abs(centre - rgb).max() < 40, (text, centre)
    flag = found["flag of Poland"].picture.pixels(64, 64).astype(int)
    assert (flag[:8] == 255).all()
    assert flag[28, 32].min() > 220 and flag[36, 32, 0] > 180 > 100 > flag[36, 32, 2]


def test_the_first_of_two_namesakes_stays():
    def drawing(emoji, *names):
        return openmoji._Drawing(None, emoji, dict(zip(("en", "zh"), names, strict=True)))

    drawings = [drawing("1", "star", "星"), drawing("2", "star", "星星"), drawing("3", "sun", "星")]
    drawings.append(drawing("4", "moon", "月"))
    assert [d.emoji for d in openmoji._without_namesakes(drawings)] == ["1", "4"]


@pytest.fixture(scope="module")
def trimmed():
    """Every eighth of the learnable drawings, by key."""
    source = sources.make("openmoji", trim=True)
    return {e.key: e.picture for e in list(source.piece(0, 1))[::8]}


def test_trimmed_drawings_have_many_shapes(trimmed):
    ratios = [height / width for height, width in (p.size() for p in trimmed.values())]
    assert 0.25 <= min(ratios) < 0.6 and 1.5 < max(ratios) <= 4
    assert len(set(ratios)) > 20


def test_a_trimmed_drawing_is_whole_and_as_large_as_fits(trimmed):
    """It is the square one, cut along its box, which holds all the ink and little else."""
    squares = {e.key: e.picture for e in every("openmoji")}
    for key, picture in list(trimmed.items())[::2]:
        left, top, width, height = picture._box
        square = np.pad(squares[key].pixels(288, 288), ((288, 288), (288, 288), (0, 0)), "constant", constant_values=255)  # fmt: skip
        y, x, h, w = (round(4 * unit) for unit in (top + 72, left + 72, height, width))
        cut = square[y : y + h, x : x + w].astype(int)
        assert (cut < 255).sum() == (square < 255).sum(), key
        assert np.abs(picture.pixels(h, w) - cut).mean() < 0.2, key
        ink = (cut < 250).any(-1)
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        gaps = rows[0], h - 1 - rows[-1], columns[0], w - 1 - columns[-1]
        assert 4 <= min(gaps) <= 12, key  # the margin is two units of four pixels


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (127, 65), (96, 31), (41, 40)])
def test_a_trimmed_drawing_has_exactly_the_size_asked_for(trimmed, size):
    for picture in list(trimmed.values())[:10]:
        assert picture.pixels(*size).shape == (*size, 3)


def test_a_trimmed_drawing_is_not_stretched():
    """A circle stays one, in the middle of any size."""
    circle = next(e.picture for e in every("openmoji", trim=True) if e.key == "1F534")
    for height, width in ((96, 40), (40, 96), (64, 64)):
        ink = (circle.pixels(height, width) < 250).any(-1)
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        assert abs(len(rows) - len(columns)) <= 1
        assert abs(rows.mean() - (height - 1) / 2) <= 1
        assert abs(columns.mean() - (width - 1) / 2) <= 1


def test_the_longest_drawing_is_four_to_one():
    """With less margin it would be longer than any bin."""
    knife = next(e.picture for e in every("openmoji", subset="all", trim=True) if e.key == "1F52A")
    height, width = knife.size()
    assert width / height == 4
