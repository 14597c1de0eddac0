"""A plan says what becomes of every row: nothing lost, nothing twice, each drop under its reason."""

import collections
import dataclasses
import json

import pytest

from lidit_jax import errors, prompts
from lidit_jax.data import buckets, dataset, filters, judging, plan_texts, planning
from lidit_jax.data.sources.example import Caption, Drawing, Example, Unusable
from lidit_jax.prompts import Prompt
from lidit_jax.share import bounds


@dataclasses.dataclass
class Listed:
    """A source that is a list."""

    examples: list

    def __len__(self):
        return len(self.examples)

    def piece(self, i, n):
        return (self.examples[k] for k in bounds(len(self), i, n))

    def prompts(self, count):
        return []

    def describe(self):
        return {"name": "listed"}


def example(key, *captions, size=(100, 100), **metadata):
    texts = tuple(c if isinstance(c, Caption) else Caption(c) for c in captions)
    metadata = {"height": size[0], "width": size[1]} | metadata
    return Example(key, Drawing(None, key), texts, metadata)


def recipe(**changes):
    values = {"bins": buckets.make_bins("grid33", (64, 64)), "side": 64, "rules": (), "pieces": 3}
    return judging.Recipe(**values | changes)


def make(folder, examples, **changes):
    return planning.make(Listed(examples), recipe(**changes), folder)


def rows(plan):
    """Every kept row's bin size and captions (original, synthetic), in the source's order."""
    texts = dataset.Captions(plan.folder)
    found = []
    for i in range(plan.pieces):
        piece = plan.piece(i)
        for row, bin in enumerate(piece.bin_N):
            if bin >= 0:
                kinds = tuple(tuple(texts[c].text for c in ids) for ids in piece.captions(row))
                found.append((plan.bins[bin], *kinds))
    return found


def ledger(folder):
    lines = (folder / "plan" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return [(entry["key"], entry["reason"]) for entry in map(json.loads, lines)]


def test_every_row_is_kept_or_has_one_reason(tmp_path):
    examples = [example(f"k{i}", f"text {i}", size=(50 + 9 * i, 100)) for i in range(12)]
    examples[2] = example("k2", "see www.example.org")
    examples[4] = Unusable("k4", "caption-missing")
    examples[7] = example("k7", " ")
    examples[9] = example("k1", "another with the key of k1")
    plan = make(tmp_path, examples, rules=filters.expand(["R4-url"]))
    assert ledger(tmp_path) == [
        ("k2", "R4-url"), ("k4", "caption-missing"), ("k7", "caption-empty"), ("k1", "key-duplicate"),
    ]  # fmt: skip
    kept = [i for i in range(12) if i not in (2, 4, 7, 9)]
    assert [captions for _, captions, _ in rows(plan)] == [(f"text {i}",) for i in kept]
    assert sum(map(sum, plan.info["counts"])) == len(kept)
    assert plan.info["dropped"] == collections.Counter(r for _, r in ledger(tmp_path))
    assert len(dataset.Captions(tmp_path)) == plan.info["captions"] == len(kept)


def test_a_text_is_written_once_however_many_pictures_bear_it(tmp_path):
    examples = [example(f"k{i}", f"a photo of {i % 3}") for i in range(30)]
    plan = make(tmp_path, examples)
    assert plan.info["captions"] == 3 and len(rows(plan)) == 30
    assert rows(plan)[4][1] == ("a photo of 1",)


def test_original_and_synthetic_captions_stay_apart_and_fail_apart(tmp_path):
    synthetic = [Caption(t, origin="synthetic") for t in ("two cats", "buy at cats.com")]
    examples = [
        example("both", "a cat", synthetic[0]),
        example("half", "another cat", synthetic[1]),
        example("other half", "see www.cats.org", synthetic[0]),
        example("none", "see www.cats.org", synthetic[1]),
    ]
    plan = make(tmp_path, examples, rules=("R4-url",))
    assert [row[1:] for row in rows(plan)] == [
        (("a cat",), ("two cats",)), (("another cat",), ()), ((), ("two cats",)),
    ]  # fmt: skip
    assert ledger(tmp_path) == [("none", "R4-url")]
    assert plan.info["captions_dropped"] == {"R4-url": 2}


def test_a_small_bin_goes_to_the_nearest_that_stays(tmp_path):
    examples = [example(f"a{i}", "x", size=(64, 64)) for i in range(10)]
    examples += [example(f"b{i}", "x", size=(128, 32)) for i in range(10)]
    examples += [example("c", "x", size=(110, 37)), example("d", "x", size=(60, 70))]
    plan = make(tmp_path, examples, least=2)
    assert collections.Counter(size for size, *_ in rows(plan)) == {(64, 64): 11, (128, 32): 11}
    assert make(tmp_path / "all", examples, least=1).info["bins"] != plan.info["bins"]
    assert len(make(tmp_path / "one", examples, least=100).bins) == 1


def test_duplicates_by_url_and_by_content_keep_the_first(tmp_path):
    examples = [
        example("a", "x", url="u1", sha256="s1"),
        example("b", "x", url="u1", sha256="s2"),
        example("c", "x", url="u2", sha256="s1"),
        example("d", "x", url="u2", sha256="s4"),
        Example("e", Drawing(None, "a"), (Caption("x"),), {"height": 64, "width": 64}),
        Example("f", Drawing(None, "a"), (Caption("x"),), {"height": 64, "width": 64}),
    ]
    plan = make(tmp_path, examples, rules=(filters.DUPLICATE,))
    # d has c's url and c has a's content: all are one picture
    assert [key for key, _ in ledger(tmp_path)] == ["b", "c", "d", "f"]
    assert len(rows(plan)) == 2
    assert len(rows(make(tmp_path / "without", examples))) == 6


def test_a_limit_takes_the_same_pictures_in_any_order(tmp_path):
    examples = [example(f"k{i}", f"text {i}", url=f"u{i}") for i in range(50)]
    one = make(tmp_path / "one", examples, limit=20)
    other = make(tmp_path / "other", examples[::-1], limit=20, pieces=2)
    assert len(rows(one)) == 20 and sorted(rows(one)) == sorted(rows(other))
    assert one.info["dropped"] == {"limit": 30}


def test_what_is_held_out_is_a_share_of_the_keys(tmp_path):
    examples = [example(f"k{i}", f"text {i}") for i in range(400)]
    out = [key for key, _ in ledger(make(tmp_path / "a", examples, hold_out=0.25).folder)]
    assert 60 < len(out) < 140
    more = [key for key, _ in ledger(make(tmp_path / "b", examples, hold_out=0.5).folder)]
    assert set(out) < set(more)


def test_both_parts_have_the_bins_that_have_enough_pictures_to_train_on(tmp_path):
    examples = [example(f"s{i}", "x") for i in range(300)]
    examples += [example(f"wide{i}", "x", size=(50, 100)) for i in range(90)]
    examples += [example(f"tall{i}", "x", size=(100, 50)) for i in range(20)]
    split = {"hold_out": 0.2, "least": 40}
    parts = [make(tmp_path / part, examples, part=part, **split) for part in judging.PARTS]
    assert parts[0].bins == parts[1].bins and len(parts[0].bins) == 2
    wide, square = sorted(collections.Counter(size for size, *_ in rows(parts[1])).values())
    assert wide < split["least"] < square


def test_a_copy_of_what_is_held_out_is_not_trained_on(tmp_path):
    examples = [example(f"k{i}", "x", url=f"u{i % 50}") for i in range(150)]
    rules = (filters.DUPLICATE,)
    out = {key for key, r in ledger(make(tmp_path, examples, hold_out=0.3, rules=rules).folder) if r == "held-out"}  # fmt: skip
    urls = {e.metadata["url"] for e in examples if e.key in out}
    dropped = {key for key, _ in ledger(tmp_path)}
    kept = [e for e in examples if e.key not in dropped]
    assert kept and urls and urls.isdisjoint(e.metadata["url"] for e in kept)


def test_a_picture_that_its_new_bin_would_enlarge_goes_by_r2(tmp_path):
    examples = [example(f"a{i}", "x", size=(64, 64)) for i in range(10)]
    examples += [example("flat", "x", size=(33, 130)), example("large", "x", size=(70, 280))]
    plan = make(tmp_path, examples, least=5, rules=("R2-resolution",))
    assert ledger(tmp_path) == [("flat", "R2-resolution")] and plan.info["enlarged"] == 0
    assert len(rows(plan)) == 11


def test_a_prompt_is_drawn_at_its_first_pictures_size(tmp_path):
    examples = [example(f"s{i}", "a sea", size=(64, 64)) for i in range(5)]
    examples += [example(f"w{i}", "a hill", size=(48, 80)) for i in range(5)]
    examples += [
        example("tall", "a lake,\nat dawn", size=(64, 63)),
        example("w5", "a sea", size=(48, 80)),
    ]
    plan = make(tmp_path, examples, least=5)  # the tall one's bin is too small
    assert len(plan.bins) == 2
    found = prompts.read(tmp_path / "prompts.jsonl")
    assert found == [
        Prompt("a sea", (64, 64)), Prompt("a hill", (48, 80)), Prompt("a lake,\nat dawn", (64, 64))
    ]  # fmt: skip


def test_a_given_prompt_without_a_picture_has_no_size(tmp_path, monkeypatch):
    monkeypatch.setattr(Listed, "prompts", lambda self, count: ["a dragon", "a hill"])
    make(tmp_path, [example("a", "a hill"), example("b", "a sea")])
    found = prompts.read(tmp_path / "prompts.jsonl")
    assert found == [Prompt("a dragon"), Prompt("a hill", (64, 64))]


def test_keys_and_texts_that_are_not_utf8_are_spelt_out(tmp_path):
    examples = [example("caf\udce9", "a"), example("caf\udce8", "b"), Unusable("\ud800", "x")]
    assert len(rows(make(tmp_path, examples))) == 2
    assert ledger(tmp_path) == [("\\xed\\xa0\\x80", "x")]


def test_captions_past_the_most_are_counted(tmp_path):
    plan = make(tmp_path, [example("a", *(f"text {i}" for i in range(300)))])
    assert plan.info["captions"] == judging.MOST_CAPTIONS
    assert plan.info["captions_dropped"] == {"caption-limit": 300 - judging.MOST_CAPTIONS}


@pytest.mark.parametrize("lost", ["captions.array_record", "prompts.jsonl", "plan/ledger.jsonl"])
def test_a_plan_without_one_of_its_files_is_made_again(tmp_path, lost):
    examples = [example(f"k{i}", f"text {i}") for i in range(5)] + [Unusable("u", "x")]
    make(tmp_path, examples)
    content = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    make(tmp_path, examples)
    assert (tmp_path / lost).read_bytes() == content


def test_a_plan_does_not_depend_on_who_makes_it_or_when(tmp_path):
    examples = [example(f"k{i}", f"text {i % 7}", size=(50 + i, 80)) for i in range(40)]
    for name in ("one", "other"):
        make(tmp_path / name, examples)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_a_plan_of_nothing_says_what_dropped_it_all(tmp_path):
    examples = [example("a", "www.x.org"), example("b", ""), Unusable("c", "tar-damaged")]
    with pytest.raises(errors.InputError, match="no picture is left: .*R4-url dropped 1"):
        make(tmp_path, examples, rules=("R4-url",))
    assert not (tmp_path / "plan.json").exists()


def test_a_plan_that_was_begun_in_other_pieces_says_so(tmp_path):
    examples = [example(f"k{i}", f"text {i}") for i in range(9)]
    make(tmp_path, examples, pieces=3)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(errors.InputError, match="started with 3 pieces, but data.shards is 4; set"):
        make(tmp_path, examples, pieces=4)


def test_prompts_and_preview_are_captions_that_the_rules_left(tmp_path):
    examples = [example(f"k{i}", f"text {i}" if i % 2 else "www.x.org") for i in range(400)]
    plan = make(tmp_path, examples, rules=("R4-url",))
    texts = [p.text for p in prompts.read(tmp_path / "prompts.jsonl")]
    assert len(set(texts)) == plan_texts.JUDGED and all(t.startswith("text ") for t in texts)
    assert len(plan.info["preview"]) == plan_texts.PREVIEWED
    named = make(tmp_path / "named", examples, preview=("a dragon", "text 5"), rules=("R4-url",))
    texts = dataset.Captions(tmp_path / "named")
    assert [texts[c].text for c in named.info["preview"]] == ["a dragon", "text 5"]
    assert named.info["captions"] == 201


def test_languages_are_told_or_found(tmp_path):
    captions = (Caption("a cat"), Caption("一只猫"), Caption("ein Hund", "de"))
    plan = make(tmp_path, [example("k", *captions)])
    assert plan.info["languages"] == {"en": 1, "zh": 1, "de": 1}
    assert dataset.Captions(tmp_path)[1].language == "zh"


def test_pictures_that_are_scaled_up_are_counted(tmp_path):
    examples = [example("a", "x", size=(63, 64)), example("b", "x", size=(64, 64))]
    assert make(tmp_path, examples).info["enlarged"] == 1
