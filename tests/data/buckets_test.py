"""Bins: which sizes there are, which of them a picture gets, and how it is brought there."""

import math
import pickle

import numpy as np
import pytest
from PIL import Image

from lidit_jax import errors
from lidit_jax.data import buckets

SIDES = (256, 512, 1024)
GRID_OF_SIZES = [(h, w) for h in range(1, 101) for w in range(1, 101)]


def bins_of(name, side):
    return buckets.make_bins(name, (side, side))


def transposed(size):
    return size[1], size[0]


@pytest.mark.parametrize("side", SIDES)
def test_the_grid_has_33_bins_of_about_one_area(side):
    sizes = bins_of("grid33", side).sizes
    assert len(set(sizes)) == len(sizes) == 33
    assert (side, side) in sizes
    assert set(map(transposed, sizes)) == set(sizes)
    assert all(0.906 * side**2 <= h * w <= side**2 for h, w in sizes)
    assert all(0.25 <= h / w <= 4 for h, w in sizes)
    assert all(h % (side // 16) == w % (side // 16) == 0 for h, w in sizes)
    assert {h / w for h, w in sizes} >= {0.25, 4.0}


@pytest.mark.parametrize(("side", "step"), [(256, 64), (256, 8), (96, 16), (64, 64)])
def test_the_grid_takes_other_steps(side, step):
    sizes = buckets.make_bins("grid33", (side, side), step).sizes
    widest = {}
    for h in range(step, 4 * side + 1, step):
        fitting = [w for w in range(step, 4 * side + 1, step) if h * w <= side**2]
        if fitting and 0.25 <= h / fitting[-1] <= 4:
            widest[h] = fitting[-1]
    assert set(sizes) == set(widest.items()) | set(map(transposed, widest.items()))
    assert len({h / w for h, w in sizes}) == len(sizes)


@pytest.mark.parametrize("side", SIDES)
def test_pixart_has_its_published_40_bins(side):
    sizes = bins_of("pixart40", side).sizes
    unit = side // 16
    assert len(set(sizes)) == len(sizes) == 40
    assert all(h % unit == w % unit == 0 for h, w in sizes)
    assert all(0.9 * side**2 <= h * w <= side**2 for h, w in sizes)
    keys = [round(h / w, 2) for h, w in sizes]
    assert keys == [
        0.25, 0.26, 0.27, 0.28, 0.32, 0.33, 0.35, 0.4, 0.42, 0.48, 0.5, 0.52, 0.57, 0.6, 0.68, 0.72,
        0.78, 0.82, 0.88, 0.94, 1.0, 1.07, 1.13, 1.21, 1.29, 1.38, 1.46, 1.67, 1.75, 2.0, 2.09, 2.4,
        2.5, 2.89, 3.0, 3.11, 3.62, 3.75, 3.88, 4.0,
    ]  # fmt: skip
    known = {0.57: (192, 336), 1.0: (256, 256), 1.75: (336, 192), 4.0: (512, 128)}
    for key, (h, w) in known.items():
        assert sizes[keys.index(key)] == (h * side // 256, w * side // 256)


@pytest.mark.parametrize("name", ["grid33", "pixart40"])
def test_bins_rise_with_their_ratio(name):
    ratios = [h / w for h, w in bins_of(name, 256).sizes]
    assert ratios == sorted(ratios)


def log_distance(a, b):
    return abs(math.log(a[0] / a[1]) - math.log(b[0] / b[1]))


def test_the_grid_gives_every_picture_the_nearest_bin_by_log_ratio():
    bins = bins_of("grid33", 256)
    for size in GRID_OF_SIZES:
        got = log_distance(size, bins.sizes[bins.assign(size)])
        assert got <= min(log_distance(size, b) for b in bins.sizes) + 1e-9, size


def test_a_transposed_picture_gets_the_transposed_bin():
    bins = bins_of("grid33", 256)
    for size in GRID_OF_SIZES:
        got = bins.sizes[bins.assign(transposed(size))]
        assert got == transposed(bins.sizes[bins.assign(size)]), size


def test_ties_go_to_the_larger_area_and_then_to_the_lower_index():
    larger_last = buckets.Bins("grid33", ((10, 20), (30, 15)))
    assert larger_last.assign((7, 7)) == 1
    larger_first = buckets.Bins("grid33", ((15, 30), (20, 10)))
    assert larger_first.assign((7, 7)) == 0
    equal = buckets.Bins("grid33", ((10, 20), (20, 10)))
    assert equal.assign((7, 7)) == 0
    irrational = buckets.Bins("grid33", ((9, 28), (28, 7)))  # sqrt(9/28 * 4) = 1.1338...
    assert irrational.assign((1134, 1000)) == 1 and irrational.assign((1133, 1000)) == 0


def test_pixart_gives_every_picture_the_bin_whose_key_is_nearest():
    bins = bins_of("pixart40", 512)
    keys = {round(h / w, 2): i for i, (h, w) in enumerate(bins.sizes)}
    for h, w in GRID_OF_SIZES:
        nearest = min(keys, key=lambda key: abs(key - h / w))  # noqa: B023
        assert bins.assign((h, w)) == keys[nearest], (h, w)


def test_the_two_rules_differ():
    by_ratio = bins_of("pixart40", 256)
    by_log = buckets.Bins("grid33", by_ratio.sizes)
    assert any(by_ratio.assign(size) != by_log.assign(size) for size in GRID_OF_SIZES)


def test_square_is_one_size_whatever_its_ratio():
    bins = buckets.make_bins("square", [256, 384])
    assert bins.sizes == ((256, 384),)
    assert bins.assign((9, 1)) == bins.assign((1, 9)) == 0


@pytest.mark.parametrize("name", ["grid33", "pixart40"])
def test_a_subset_keeps_the_rule(name):
    bins = bins_of(name, 256)
    some = bins.subset(list(size) for size in reversed(bins.sizes[::3]))
    assert some == buckets.Bins(name, bins.sizes[::3])
    for size in GRID_OF_SIZES[::7]:
        distance = buckets.KINDS[name].distance
        nearest = min(some.sizes, key=lambda b: distance(size, b))  # noqa: B023
        assert some.sizes[some.assign(size)] == nearest


def test_bins_that_were_used_can_be_pickled():
    bins = bins_of("grid33", 256)
    bins.assign((3, 4))
    assert pickle.loads(pickle.dumps(bins)) == bins


@pytest.mark.parametrize(
    ("name", "size", "step", "message"),
    [
        ("grid", (256, 256), 0, "unknown bins 'grid'; known: grid33, "),
        ("grid33", (256, 384), 0, "got 256x384; use 256x256 or 384x384, or square"),
        ("grid33", (250, 250), 0, "divisible by 16; use 240x240 or 256x256$"),
        ("grid33", (256, 256), 24, "divisible by 24; use 240x240 or 264x264$"),
        ("grid33", (8, 8), 0, "divisible by 16; use 16x16$"),
        ("grid33", (256, 256), -16, "step of the bins is -16; use 0 or more"),
        ("pixart40", (128, 128), 0, "256, 512 and 1024, got 128"),
        ("pixart40", (256, 512), 0, "need a square size"),
        ("pixart40", (256, 256), 16, "have no step, got 16; use 0, or grid33"),
        ("square", (256, 256), 16, "have no step"),
    ],
)
def test_bins_that_do_not_exist_are_refused(name, size, step, message):
    with pytest.raises(errors.InputError, match=message):
        buckets.make_bins(name, size, step)


@pytest.mark.parametrize(
    ("counts", "least", "stay"),
    [
        ([5, 0, 9, 4], 5, (0, 2)),
        ([5, 0, 9, 4], 10, (2,)),
        ([3, 7, 7], 8, (1,)),
        ([0, 1], 0, (0, 1)),
        ([0, 0], 1, (0,)),
        ([4], 1, (0,)),
    ],
)
def test_small_bins_merge(counts, least, stay):
    assert buckets.merge_small(counts, least) == stay


def test_fit_covers_and_crops_the_centre():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    np.testing.assert_array_equal(buckets.fit(wide, (20, 20)), 255)
    assert buckets.fit(wide, (30, 16)).shape == (30, 16, 3)
    assert buckets.fit(wide, (20, 60)) is wide


@pytest.mark.parametrize("natural", [(50, 301), (301, 50), (37, 41), (9, 7)])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_fit_is_the_centre_of_the_whole_picture_scaled(natural, size):
    """Of moderate contrast: rows and columns are filtered in either order, and cut at 0 and 255 between."""
    image = np.random.default_rng(0).integers(90, 166, (*natural, 3), np.uint8)
    scale = max(size[0] / natural[0], size[1] / natural[1])
    scaled = [max(round(side * scale), wanted) for side, wanted in zip(natural, size)]
    whole = np.asarray(Image.fromarray(image).resize(scaled[::-1], Image.Resampling.BICUBIC))
    top, left = ((s - wanted) // 2 for s, wanted in zip(scaled, size))
    centre = whole[top : top + size[0], left : left + size[1]].astype(int)
    assert np.abs(buckets.fit(image, size) - centre).max() <= 1


def test_a_thin_line_is_not_scaled_as_a_whole():
    """To 20 million rows of 1,024 pixels."""
    line = np.full((60_000, 3, 3), 7, np.uint8)
    np.testing.assert_array_equal(buckets.fit(line, (1024, 1024)), 7)
