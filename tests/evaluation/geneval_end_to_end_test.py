"""GenEval from prompts to results.json: drawn, judged, killed, continued, shared out; each time the same."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from lidit_jax.evaluation import pictures
from lidit_jax.evaluation.benchmarks import measuring
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.benchmarks.geneval import COLOURS, TAGS
from lidit_jax.evaluation.judges import open_judges
from lidit_jax.evaluation.positional.prompts import ADJECTIVES, FAMILIES
from lidit_jax.share import WHOLE, Share
from tests.evaluation.made import clause

ROOT = pathlib.Path(__file__).parents[2]


CAT, DOG = clause("cat"), clause("dog")
INCLUDE = {
    "single_object": [CAT],
    "two_object": [CAT, DOG],
    "counting": [clause("cat", 2)],
    "colors": [clause("tv", color="red")],
    "position": [CAT, clause("dog", position=["above", 0])],
    "color_attr": [clause("cat", color="red"), clause("dog", color="blue")],
}
ITEMS = [
    Item(tag, f"a picture of {tag}", tag, {"include": INCLUDE[tag], "exclude": []}) for tag in TAGS
]
PER_PROMPT = 2


HOW = {"run": "5f1", "step": 9, "guidance": 4.0, "sampler": {"name": "euler", "steps": 20}}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two pictures of noise for each prompt."""
    folder, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    entries = []
    for k, item in enumerate(item for item in ITEMS for _ in range(PER_PROMPT)):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((32, 24)).save(folder / f"{k}.png")
        entries.append({"file": f"{k}.png", "prompt": item.text, "seed": k})
    told = {**HOW, "who": "a manifest's own", "pictures": entries}
    (folder / pictures.MANIFEST).write_text(json.dumps(told))
    return pictures.read(folder)


class Sure:
    """The tiny detector, surer of itself: of each class, what it finds first has a score of 0.95.

    It is interrupted after so many pictures, if told.
    """

    def __init__(self, detector, left=None):
        self.detector, self.identity, self.left = detector, detector.identity, left

    def detect(self, image, labels):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = self.left and self.left - 1
        found = self.detector.detect(image, labels)
        first = {d.label: d for d in reversed(found)}
        return [dataclasses.replace(d, score=0.95 if d is first[d.label] else 0.2) for d in found]


@pytest.fixture(scope="module")
def tiny():
    return open_judges({"detector": "tiny", "clip": "tiny"})


def measure(drawn, tiny, out, share=WHOLE, left=None):
    judges = dataclasses.replace(tiny, detector=Sure(tiny.detector, left))
    given = {"mode": "reference", "command": "as typed", "tiny": True}
    return measuring.measure("geneval", ITEMS, drawn, judges, out, share, **given)


@pytest.fixture(scope="module")
def whole(drawn, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    measure(drawn, tiny, out)
    return out


def content(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_results_tell_what_was_measured_how_and_beside_what(whole):
    results = json.loads((whole / "results.json").read_text())
    assert results.keys() == {
        *("suite", "mode", "judges", "prompts_sha256", "n_prompts", "n_images", "per_prompt"),
        *("scores", "ci95", "notes", "command"),
        *(*HOW, "seeds"),
    }
    assert results | HOW == results and results["seeds"] == [0, 11]
    assert (results["suite"], results["mode"]) == ("geneval", "reference")
    assert (results["n_prompts"], results["n_images"], results["per_prompt"]) == (6, 12, 2)
    assert results["judges"].keys() == {"detector", "clip"}
    assert results["scores"].keys() == results["ci95"].keys() == {*TAGS, "overall", "prompts_any"}
    for name, (low, high) in results[
        "ci95"
    ].items():  # one prompt of each tag, which is always drawn
        assert [low, high] == pytest.approx([results["scores"][name]] * 2)
    assert any("mean nothing" in note for note in results["notes"])
    text = (whole / "results.md").read_text(encoding="utf-8")
    assert "| overall | " in text and "LI-DiT-10B" in text and "GenEval-HF" in text
    assert (
        "|  |  |" in text and "| 0.60 | 0.76 |" not in text
    )  # of random weights, nothing compares


def test_what_is_found_is_scored(whole):
    """Of the tiny detector's cats and dogs: single objects are there, and never two of a kind."""
    _, *lines = (whole / "judged-0-of-1.jsonl").read_text().splitlines()
    records = [json.loads(line)["record"]["objects"] for line in lines]
    results = json.loads((whole / "results.json").read_text())
    singles = [bool(record.get("cat")) for record in records[:PER_PROMPT]]
    assert results["scores"]["single_object"] == np.mean(singles) > 0
    assert results["scores"]["counting"] == 0
    coloured = [of[0]["colour"] for record in records[-PER_PROMPT:] for of in record.values()]
    assert coloured and set(coloured) <= set(COLOURS)


@pytest.mark.parametrize("left", [0, 5, 11])
def test_a_run_that_was_stopped_gives_the_same_results(drawn, tiny, whole, tmp_path, left):
    with pytest.raises(KeyboardInterrupt):
        measure(drawn, tiny, tmp_path, left=left)
    assert not (tmp_path / "results.json").exists()
    measure(drawn, tiny, tmp_path)
    assert content(tmp_path) == content(whole)


def test_shares_give_the_same_results(drawn, tiny, whole, tmp_path):
    assert measure(drawn, tiny, tmp_path, Share(0, 2)) is None
    assert not (tmp_path / "results.json").exists()
    assert measure(drawn, tiny, tmp_path, Share(1, 2)) == (whole / "results.md").read_text()
    assert (tmp_path / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def started(*args):
    """Starts Python as a user's door does, on one CPU device."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "OMP_NUM_THREADS": "1"}
    command, pipe = [sys.executable, *map(str, args)], subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def ended(process):
    """Returns (exit status, stdout, stderr's last line) when a process has ended."""
    stdout, stderr = process.communicate()
    return process.returncode, stdout, (stderr.strip().splitlines() or [""])[-1]


def evaluate(*args):
    return started("-m", "lidit_jax.evaluate", "--suite=geneval", *args)


REFUSED = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from lidit_jax import errors, evaluate
for args in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        flags.FLAGS(["evaluate", *args])
        try:
            evaluate.main()
        except errors.InputError as error:
            print(error)
"""


def test_flags_that_a_way_does_not_read_are_refused(tmp_path):
    cases = {
        "no flag says what to do; want one of --fetch, --write_prompts, --samples, --workdir, --results": [],
        "--fetch and --samples are different jobs": ["--fetch", "--samples=x"],
        "--per_prompt only works with --workdir, not with --samples": ["--samples=x", "--per_prompt=1"],
        "--llm only works with --workdir, not with --samples": ["--samples=x", "--llm=a=b"],
        "--vae does not apply to --suite=shapes; it is for geneval": ["--suite=shapes", "--samples=x", "--vae=y"],
        "--judges only works with --samples or --workdir, not with --fetch": ["--fetch", "--judges=tiny"],
        "no --prompts given": ["--samples=x"],
        "no evaluation_metadata.jsonl in": ["--samples=x", f"--prompts={tmp_path}"],
        "--write_prompts=a.txt: want a file that ends in .jsonl": ["--write_prompts=a.txt"],
        "--mode does not apply to --suite=positional; it is for geneval, compbench, dpg": ["--suite=positional", "--samples=x", "--mode=fixed"],
        "--mode does not apply to --suite=shapes; it is for geneval, compbench": ["--suite=shapes", "--samples=x", "--mode=fixed"],
        "--workdir does not apply to --suite=shapes; it is for geneval": ["--suite=shapes", "--workdir=x"],
        "--fetch does not apply to --suite=shapes; it is for geneval": ["--suite=shapes", "--fetch"],
        "--judges does not apply to --suite=scenes; it is for clip_score, fid, geneval": ["--suite=scenes", "--samples=x", "--judges=clip=y"],
        "--judges does not apply to --suite=recall;": ["--suite=recall", "--judges=tiny"],
        "--config does not apply to --suite=geneval; it is for fid, recall": ["--samples=x", "--config=configs/quickstart.py"],
        "--config does not apply to --suite=psnr;": ["--suite=psnr", "--samples=x", "--config=configs/quickstart.py"],
        "--results does not apply to --suite=geneval; it is for positional": ["--results=a=b"],
        "--results=a: want NAME=FOLDER": ["--suite=positional", "--results=a", "--out=x"],
        "--results is given twice with the name a;": ["--suite=positional", "--results=a=b", "--results=a=c", "--out=x"],
        f"no results at {tmp_path}": ["--suite=positional", f"--results=a={tmp_path}", "--out=x"],
    }  # fmt: skip
    check_refused({message: ["--suite=geneval", *args] for message, args in cases.items()})


def check_refused(cases):
    """Runs the door with the arguments of each case, and compares its message with the case's key."""
    status, told, error = ended(started("-c", REFUSED, json.dumps(list(cases.values()))))
    assert status == 0, error
    for message, line in zip(cases, told.splitlines(), strict=True):
        assert line.startswith(message), line


def test_mistakes_are_told_before_the_work(samples, tmp_path):
    """Each command has a second mistake, which the work would find."""
    samples([("a nice day", np.zeros((8, 8, 3), np.uint8))])
    (tmp_path / "file").write_text("")
    (tmp_path / "prompts.jsonl").mkdir()
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "words").mkdir()
    lines = [
        f"a {a} {c}ar and a {a} {c}ow" for of in ADJECTIVES.values() for a in of for c in "bcft"
    ]
    for family in FAMILIES:
        (tmp_path / "words" / f"{family}_train.txt").write_text("\n".join(lines))
    suite, drawn, out, no_judge = (
        "--suite=shapes",
        f"--samples={tmp_path}",
        f"--out={tmp_path}/out",
        "--judges=vqa=nowhere",
    )
    positional, words = "--suite=positional", f"--prompts={tmp_path}/words"
    check_refused({
        "no --out given": [suite, drawn],
        f"--out {tmp_path}/file: {tmp_path}/file is a file": [suite, drawn, f"--out={tmp_path}/file"],
        f"--out {tmp_path}/file/x: {tmp_path}/file is a file": [positional, f"--results=a={tmp_path}", f"--out={tmp_path}/file/x"],
        "prompts that are not in the benchmark (1): 'a nice day'": [positional, words, drawn, no_judge, out],
        f"no folder of samples at {tmp_path}/none": [positional, words, f"--samples={tmp_path}/none", no_judge, out],
        "--share=: want i/n": ["--suite=scenes", drawn, "--share=", out],
        "--llm=x: want NAME=MODEL": ["--suite=scenes", "--workdir=nowhere", "--llm=x", out],
        f"--out {tmp_path}/run is a run; give": ["--suite=scenes", "--workdir=nowhere", f"--out={tmp_path}/run"],
        f"--write_prompts={tmp_path}/prompts.jsonl: want a file": ["--suite=scenes", f"--write_prompts={tmp_path}/prompts.jsonl"],
    })  # fmt: skip


@pytest.mark.slow
def test_a_suite_tells_of_a_judge_of_random_weights(samples, tmp_path):
    samples([("a nice day", np.zeros((8, 8, 3), np.uint8))])
    given = [
        "--suite=clip_score",
        f"--samples={tmp_path}",
        "--judges=tiny",
        f"--out={tmp_path}/out",
    ]
    status, told, error = ended(started("-m", "lidit_jax.evaluate", *given))
    assert status == 0, error
    note = json.loads((tmp_path / "out/results.json").read_text())["notes"][0]
    assert "mean nothing" in note and told.splitlines()[-1] == note


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_all_prompts_through_the_doors_with_a_kill_amid_the_judging(official, workdir, tmp_path):
    """`sample` draws what --write_prompts wrote, `evaluate --workdir` takes it as its own drawing."""
    out, killed = tmp_path / "out", tmp_path / "killed"
    given = [f"--prompts={official / 'geneval'}"]
    status, told, _ = ended(evaluate(*given, f"--write_prompts={tmp_path}/prompts.jsonl"))
    assert (status, told) == (0, f"553 prompts: {tmp_path}/prompts.jsonl\n")
    drawing = [f"--workdir={workdir}", "--per_prompt=1"]
    status, *_ = ended(started("-m", "lidit_jax.sample", *drawing, f"--prompts={tmp_path}/prompts.jsonl", f"--out={out}/samples"))  # fmt: skip
    assert status == 0

    judging = [*given, *drawing, "--judges=tiny", f"--out={out}"]
    status, _, error = ended(evaluate(*judging, "--llm=x=elsewhere"))
    assert status == 2 and "unknown encoder of the run 'x'; known: tiny0" in error
    status, told, error = ended(evaluate(*judging))
    assert status == 0, error
    assert f"553 pictures are already in {out}/samples" in told and "| overall |" in told
    whole = json.loads((out / "results.json").read_text())
    assert (whole["n_prompts"], whole["n_images"], whole["per_prompt"]) == (553, 553, 1)

    again = [*given, f"--samples={out}/samples", "--judges=tiny", f"--out={killed}"]
    process = evaluate(*again)
    journal = killed / "judged-0-of-1.jsonl"
    while lines(journal) < 50:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    ended(process)
    assert 50 <= lines(journal) < 554 and not (killed / "results.json").exists()
    begun = journal.read_bytes().rpartition(b"\n")[0]
    status, _, error = ended(evaluate(*again))
    assert status == 0, error
    assert journal.read_bytes() == (out / journal.name).read_bytes()
    assert journal.read_bytes().startswith(begun)
    resumed = json.loads((killed / "results.json").read_text())
    assert resumed | {"command": ""} == whole | {"command": ""}
