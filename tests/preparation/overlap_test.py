"""What a run is judged by: has it pictures that are trained on?"""

import json
import shutil

import pytest

from lidit_jax import preparation
from lidit_jax.data import overlap
from tests.tiny_prepared import SOURCES, change_json, config_of


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (("train", 0.1), ("held_out", 0.1), False),
        (("train", 0.1), ("held_out", 0.05), False),
        (("train", 0.1), ("held_out", 0.2), True),
        (("train", 0.1), ("train", 0.1), True),
        (("held_out", 0.1), ("held_out", 0.1), True),
    ],
)
def test_parts_of_one_source_have_pictures_in_common_as_their_shares_say(one, other, shared):
    one, other = ({"described": "a", "part": p, "hold_out": h} for p, h in (one, other))
    assert overlap.share_pictures(one, other) == overlap.share_pictures(other, one) == shared
    assert not overlap.share_pictures(one, other | {"described": "b"})


def planned(llms, folder, source, options, **data):
    """Plans the pictures of a source; returns the plan's folder, and how many it keeps."""
    plan, _ = preparation.prepare_plan(config_of(llms, source, options, **data), folder)
    return folder, sum(map(sum, plan.info["counts"]))


def test_pictures_of_a_folder_that_has_grown_are_told(llms, raw, tmp_path):
    trained_on, count = planned(llms, tmp_path / "old", "folder", {"path": str(raw)})
    grown = shutil.copytree(raw, tmp_path / "grown")
    shutil.copy(grown / "odd" / "0009.jpg", grown / "odd" / "0010.jpg")
    (grown / "odd" / "0010.txt").write_text("a new one")
    judged, more = planned(llms, tmp_path / "new", "folder", {"path": str(grown)})
    assert more == count + 1 and overlap.count_alike(trained_on, judged) == count
    assert overlap.count_alike(judged, trained_on) == count

    (grown / "odd" / "0009.txt").write_text("another bird")  # its synthetic caption stays
    fields = json.loads((grown / "even" / "0002.json").read_text())
    (grown / "even" / "0002.json").write_text(json.dumps(fields | {"caption": "another bar"}))
    change_json(grown / "even" / "0004.json", width=81)
    judged, _ = planned(llms, tmp_path / "changed", "folder", {"path": str(grown)})
    assert overlap.count_alike(trained_on, judged) == count - 2


def test_pictures_of_parts_or_sources_that_differ_are_not_compared(llms, raw, tmp_path):
    options = {"path": str(raw)}
    trained_on, _ = planned(llms, tmp_path / "train", "folder", options, hold_out=0.5)
    judged, count = planned(
        llms, tmp_path / "out", "folder", options, hold_out=0.5, part="held_out"
    )
    assert count and overlap.count_alike(trained_on, judged) == 0
    whole, _ = planned(llms, tmp_path / "whole", "folder", options)
    assert overlap.count_alike(whole, judged) == count
    tars, _ = planned(llms, tmp_path / "tars", *SOURCES["webdataset"](tmp_path / "raw"))
    assert overlap.count_alike(whole, tars) == 0
    (judged / "plan.json").unlink()
    assert overlap.count_alike(whole, judged) == 0
