"""A benchmark's pictures are judged whole, once each, whatever stops it; or refused with what is wrong."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation import pictures
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.benchmarks.judging import judge_pictures
from lidit_jax.evaluation.benchmarks.measuring import judge_folders
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.share import WHOLE, Share

ITEMS = [Item(str(k), text, "all") for k, text in enumerate(("a cat", "红心", 'a "dog"'))]
PER_PROMPT = 2


class Eye:
    identity = "Eye:1"


JUDGES = Judges(clip=Eye())


class Redness:
    """A benchmark whose judge says how red a picture is. It counts what it is asked."""

    version = 1
    per_prompt = PER_PROMPT
    judges = ("clip",)
    paper: dict = {}

    def __init__(self, least_left=None):
        self.asked, self.left = Counter(), least_left

    def judge(self, image, item, judges):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = self.left and self.left - 1
        self.asked[int(image[0, 0, 0])] += 1
        return {"red": int(image[0, 0, 0]), "text": item.text}


def write(folder, prompts, sizes=None):
    """Writes a picture for each prompt, the k-th of redness k, and reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for k, prompt in enumerate(prompts):
        entries.append({"file": f"{k:06d}.png", "prompt": prompt, "seed": k})
        side = sizes[k] if sizes else 4
        Image.fromarray(np.full((side, 6, 3), k, np.uint8)).save(folder / entries[-1]["file"])
    (folder / pictures.MANIFEST).write_text(json.dumps({"pictures": entries}))
    return pictures.read(folder)


PROMPTS = [item.text for item in ITEMS for _ in range(PER_PROMPT)]
WANTED = [
    [{"red": PER_PROMPT * i + k, "text": item.text} for k in range(PER_PROMPT)]
    for i, item in enumerate(ITEMS)
]


@pytest.fixture
def drawn(tmp_path):
    return write(tmp_path / "samples", PROMPTS)


def judge(drawn, out, share=WHOLE, benchmark=None, judges=JUDGES, items=ITEMS):
    return judge_pictures(benchmark or Redness(), items, drawn, judges, out, share)


def test_every_picture_is_judged_once_and_its_record_kept(drawn, tmp_path):
    benchmark = Redness()
    assert judge(drawn, tmp_path / "out", benchmark=benchmark) == WANTED
    assert benchmark.asked == {k: 1 for k in range(6)}
    assert judge(drawn, tmp_path / "out", benchmark=benchmark) == WANTED
    assert benchmark.asked == {k: 1 for k in range(6)}
    head, *lines = (tmp_path / "out/judged-0-of-1.jsonl").read_text().splitlines()
    assert json.loads(head).keys() == {"benchmark", "judges", "prompts", "manifest"}
    told = json.loads(lines[2])
    assert told.keys() == {"file", "sha256", "record", "sealed"}
    assert (told["file"], told["record"]) == ("000002.png", WANTED[1][0])


def test_a_record_is_on_disk_before_the_next_picture_is_judged(drawn, tmp_path):
    class Watching(Redness):
        def judge(self, image, item, judges):
            if told := sum(self.asked.values()):
                path = tmp_path / "judged-0-of-1.jsonl"
                assert path.read_bytes().count(b"\n") == 1 + told
            return super().judge(image, item, judges)

    assert judge(drawn, tmp_path, benchmark=Watching()) == WANTED


@pytest.mark.parametrize("pictures_done", range(6))
def test_a_stopped_run_continues_with_the_next_picture(drawn, tmp_path, pictures_done):
    with pytest.raises(KeyboardInterrupt):
        judge(drawn, tmp_path / "out", benchmark=Redness(least_left=pictures_done))
    benchmark = Redness()
    assert judge(drawn, tmp_path / "out", benchmark=benchmark) == WANTED
    assert sorted(benchmark.asked) == list(range(pictures_done, 6))


def test_a_journal_cut_at_any_byte_is_made_whole_again(drawn, tmp_path):
    judge(drawn, tmp_path / "whole")
    whole = (tmp_path / "whole/judged-0-of-1.jsonl").read_bytes()
    path = tmp_path / "cut/judged-0-of-1.jsonl"
    path.parent.mkdir()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert judge(drawn, path.parent) == WANTED
        assert path.read_bytes() == whole


@pytest.mark.parametrize("count", [2, 3, 8])
def test_shares_judge_each_picture_once_and_the_last_has_all(drawn, tmp_path, count, capsys):
    benchmark = Redness()
    for index in range(count):
        found = judge(drawn, tmp_path / "out", Share(index, count), benchmark)
        left = sum(k % count > index for k in range(6))
        assert found == (None if left else WANTED)
        assert (f"{left} of 6 pictures, from other shares" in capsys.readouterr().out) == (left > 0)
    assert benchmark.asked == {k: 1 for k in range(6)}
    assert judge(drawn, tmp_path / "out", benchmark=benchmark) == WANTED
    assert set(benchmark.asked.values()) == {1}


def test_what_another_share_is_just_writing_is_not_taken(drawn, tmp_path):
    judge(drawn, tmp_path / "out", Share(1, 2))
    other = tmp_path / "out/judged-1-of-2.jsonl"
    torn = other.read_bytes()[:-5]
    other.write_bytes(torn)
    assert judge(drawn, tmp_path / "out", Share(0, 2)) is None
    assert other.read_bytes() == torn


class OtherEye:
    identity = "Eye:2"


class Reader(Redness):
    """The same, whose judging has changed."""

    version = 2


Reader.__name__ = "Redness"


class Blueness(Redness):
    pass


def test_a_journal_that_another_process_writes_is_refused_and_left_alone(drawn, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        judge(drawn, tmp_path, benchmark=Redness(least_left=2))
    path = tmp_path / "judged-0-of-1.jsonl"
    before = path.read_bytes()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    with pytest.raises(InputError, match="another process writes .*judged-0-of-1.jsonl now; wait"):
        judge(drawn, tmp_path)
    assert path.read_bytes() == before
    other.communicate(b"\n")
    assert judge(drawn, tmp_path) == WANTED


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"judges": Judges(clip=OtherEye())},
            "judges is {'clip': 'Eye:1'}, here {'clip': 'Eye:2'}",
        ),
        ({"benchmark": Reader()}, "benchmark is Redness 1, here Redness 2"),
        ({"benchmark": Blueness()}, "benchmark is Redness 1, here Blueness 1"),
        ({"items": [Item("9", "a cat", "all"), *ITEMS[1:]]}, "prompts is .*, here"),
        ({"items": [Item("0", "a cat", "all", {"count": 2}), *ITEMS[1:]]}, "prompts is .*, here"),
    ],
)
def test_a_journal_of_something_else_is_refused(drawn, tmp_path, changed, message):
    judge(drawn, tmp_path / "out")
    before = (tmp_path / "out/judged-0-of-1.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"is about something else: {message}.*another --out"):
        judge(drawn, tmp_path / "out", **changed)
    assert (tmp_path / "out/judged-0-of-1.jsonl").read_bytes() == before


def test_a_journal_of_other_pictures_is_refused(drawn, tmp_path):
    judge(drawn, tmp_path / "out")
    manifest = tmp_path / "samples" / pictures.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"step": 7}))
    with pytest.raises(InputError, match="about something else: manifest is"):
        judge(pictures.read(tmp_path / "samples"), tmp_path / "out")
    copied = shutil.copytree(tmp_path / "samples", tmp_path / "copy")
    judge(pictures.read(copied), tmp_path / "out2")
    assert (
        judge(pictures.read(tmp_path / "samples"), tmp_path / "out2") == WANTED
    )  # a copy is not other


@pytest.mark.parametrize("shares", [1, 2])
def test_a_picture_that_was_replaced_is_judged_again(drawn, tmp_path, shares):
    parts = [Share(index, shares) for index in range(shares)]
    for part in parts:
        judge(drawn, tmp_path / "out", part)
    Image.fromarray(np.full((4, 6, 3), 99, np.uint8)).save(drawn[3].path)
    benchmark = Redness()
    found = [judge(drawn, tmp_path / "out", part, benchmark) for part in parts]
    assert benchmark.asked == {99: 1}
    assert [r["red"] for of in found[-1] for r in of] == [0, 1, 2, 99, 4, 5]


def test_a_mistake_of_the_first_picture_is_told_with_its_file_and_leaves_no_journal(
    drawn, tmp_path
):
    class Blind(Redness):
        def judge(self, image, item, judges):
            raise InputError("a picture of 6x4 pixels; draw it larger")

    with pytest.raises(InputError, match="000000.png: a picture of 6x4 pixels; draw it larger"):
        judge(drawn, tmp_path / "out", benchmark=Blind())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("record", ["{}", "5", "NaN", '{"red": 2, "text": "红心"}', "[" * 10**5])
def test_a_record_that_is_not_as_written_is_refused(drawn, tmp_path, record):
    judge(drawn, tmp_path / "out")
    path = tmp_path / "out/judged-0-of-1.jsonl"
    head, first, *lines = path.read_text().splitlines()
    before, after = first.split(json.dumps(WANTED[0][0]))
    path.write_text("\n".join([head, before + record + after, *lines]) + "\n")
    with pytest.raises(InputError, match="judged-0-of-1.jsonl is damaged .*; delete it"):
        judge(drawn, tmp_path / "out")


@pytest.mark.parametrize("line", [b"{\n", b"3\n", b"[]\n", b'{"file": "x"}\n', b"\xff\n"])
def test_a_damaged_journal_is_refused(drawn, tmp_path, line):
    judge(drawn, tmp_path / "out")
    path = tmp_path / "out/judged-0-of-1.jsonl"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(InputError, match="judged-0-of-1.jsonl is damaged .*; delete it"):
        judge(drawn, tmp_path / "out")


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (PROMPTS[:4], """prompts without a picture .1.: 'a "dog"'; the manifest's prompts"""),
        (
            PROMPTS[:2],
            "prompts without a picture .2.: '红心', 'a \"dog\"'; the manifest's prompts must",
        ),
        (
            PROMPTS[:5],
            "prompts that do not have 2 pictures like most others .1.: 'a \"dog\"' \\(1\\); the manifest's prompts must",
        ),
        (
            PROMPTS + ["a cat"],
            "prompts that do not have 2 pictures like most others .1.: 'a cat' \\(3\\); the manifest's prompts must",
        ),
        (
            PROMPTS + ["x", "y"],
            "prompts that are not in the benchmark .2.: 'x', 'y'; the manifest's prompts must",
        ),
        (
            PROMPTS + [f"v{k}" for k in range(25)],
            "prompts that are not in the benchmark .25.: 'v0', .*, 'v19', \\.\\.\\.; the manifest's prompts must",
        ),
        (
            PROMPTS[::-1],
            "pictures that are not in the order of the prompts .4.: 000000.png of 'a \"dog\"'",
        ),
        (PROMPTS[::2] * 2, "pictures that are not in the order of the prompts .4.: "),
    ],
)
def test_other_pictures_than_the_prompts_are_refused(tmp_path, prompts, message):
    with pytest.raises(InputError, match=message):
        judge(write(tmp_path / "samples", prompts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("each", [1, 3])
def test_another_number_of_pictures_is_taken_if_it_is_every_prompts(tmp_path, each):
    prompts = [item.text for item in ITEMS for _ in range(each)]
    found = judge(write(tmp_path / "samples", prompts), tmp_path / "out")
    assert [[r["text"] for r in of] for of in found] == [[item.text] * each for item in ITEMS]


def test_a_prompt_that_a_benchmark_has_twice_has_twice_the_pictures(tmp_path):
    items = [ITEMS[0], ITEMS[1], Item("2", "a cat", "other")]
    prompts = [item.text for item in items for _ in range(PER_PROMPT)]
    found = judge(write(tmp_path / "samples", prompts), tmp_path / "out", items=items)
    assert [r["red"] for of in found for r in of] == list(range(6))


def test_mixed_sizes_and_damaged_pictures_are_named(tmp_path):
    mixed = write(tmp_path / "mixed", PROMPTS, sizes=[4, 4, 4, 8, 4, 4])
    wanted = "not complete PNGs of 6x4 pixels, the size of 000000.png .1.: 000003.png;"
    with pytest.raises(InputError, match=wanted):
        judge(mixed, tmp_path / "out")
    torn = write(tmp_path / "torn", PROMPTS)
    torn[5].path.write_bytes(torn[5].path.read_bytes()[:-4])
    with pytest.raises(InputError, match="not complete PNGs of .* .1.: 000005.png;"):
        judge(torn, tmp_path / "out")
    spoiled = write(tmp_path / "spoiled", PROMPTS)
    content = bytearray(spoiled[4].path.read_bytes())
    content[40:-20] = bytes(len(content) - 60)
    spoiled[4].path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the picture .*000004.png"):
        judge(spoiled, tmp_path / "out")


def test_a_picture_that_stands_for_two_is_refused(tmp_path):
    write(tmp_path, PROMPTS)
    manifest = json.loads((tmp_path / pictures.MANIFEST).read_text())
    (tmp_path / "x").mkdir()
    manifest["pictures"][1]["file"] = "x/../" + manifest["pictures"][0]["file"]
    (tmp_path / pictures.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="files that are listed more than once .*000000.png"):
        judge(pictures.read(tmp_path), tmp_path / "out")


def test_pictures_in_folders_of_their_own_are_told_apart(tmp_path):
    write(tmp_path, PROMPTS)
    manifest = json.loads((tmp_path / pictures.MANIFEST).read_text())
    for k, entry in enumerate(manifest["pictures"]):
        moved = f"{k // 2:05d}/samples/{k % 2:04d}.png"
        (tmp_path / moved).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / entry["file"]).rename(tmp_path / moved)
        entry["file"] = moved
    (tmp_path / pictures.MANIFEST).write_text(json.dumps(manifest))
    assert judge(pictures.read(tmp_path), tmp_path / "out") == WANTED


def test_a_missing_judge_is_named(drawn, tmp_path):
    with pytest.raises(InputError, match="Redness lacks a judge; give --judges=clip=FOLDER"):
        judge(drawn, tmp_path / "out", judges=Judges())


ASKED = ("detector", "clip")


def test_judges_are_named_by_what_they_do():
    assert judge_folders(["clip=a=b", "detector=c"], ASKED) == {"clip": "a=b", "detector": "c"}
    assert judge_folders(["tiny"], ASKED) == {"detector": "tiny", "clip": "tiny"}
    assert judge_folders(["tiny", "clip=c"], ASKED) == {"detector": "tiny", "clip": "c"}
    for given, message in {
        "clip": "--judges=clip: want KIND=FOLDER, or tiny for all",
        "clip=": "--judges=clip=: want KIND=FOLDER",
        "vqa=a": "unknown judge of this benchmark 'vqa'; known: clip, detector",
        "clip=a": "a judge is missing; give --judges=detector=FOLDER, or --judges=tiny",
    }.items():
        with pytest.raises(InputError, match=message):
            judge_folders([given], ASKED)


def test_a_folder_goes_before_tiny_and_two_of_a_kind_are_refused():
    assert judge_folders(["clip=c", "tiny"], ASKED) == {"detector": "tiny", "clip": "c"}
    with pytest.raises(InputError, match="--judges=clip=a and --judges=clip=b: want only one clip"):
        judge_folders(["clip=a", "tiny", "clip=b"], ASKED)
