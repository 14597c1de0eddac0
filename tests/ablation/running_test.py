"""A tiny family, end to end on a tiny real LLM: made, stopped, continued, and reported."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from lidit_jax import ablation, files, probe
from lidit_jax.ablation import report, running
from lidit_jax.errors import InputError
from lidit_jax.probing import prompts, states
from tests import several
from tests.ablation.tiny_family import family


@pytest.fixture(scope="module")
def made(tiny_llm, tmp_path_factory):
    """Both runs with one seed, and the folder that they are in."""
    out = tmp_path_factory.mktemp("ablation")
    f = family(tiny_llm("llama"))
    jobs, wanted = running.jobs(f, 1, out), running.items(f)
    for job in jobs:
        ablation.run(job, wanted, out / "data")
    return f, jobs, wanted, out


def test_each_run_is_trained_drawn_and_judged(made):
    _, jobs, wanted, _ = made
    for job in jobs:
        assert len(list((job.folder / "drawn").glob("0*.png"))) == len(wanted) == 32
        manifest = json.loads((job.folder / "drawn" / "manifest.json").read_text())
        assert [picture["seed"] for picture in manifest["pictures"]] == list(range(32))
        assert len(json.loads((job.folder / "judged.json").read_text())["records"]) == 32
        config = json.loads((job.folder / "config.json").read_text())
        assert (
            config["model"]["conditioner"]["name"] == {"base": "direct", "ltr": "infused"}[job.name]
        )


def test_a_run_that_is_done_is_left_alone_and_another_judge_looks_again(made, monkeypatch):
    _, jobs, wanted, out = made
    monkeypatch.setattr(running, "train", lambda *_: pytest.fail("trained again"))
    path = jobs[0].folder / "judged.json"
    before = path.read_bytes()
    ablation.run(jobs[0], wanted, out / "data")
    assert path.read_bytes() == before
    monkeypatch.setattr(type(running.BENCHMARK), "version", 99)
    ablation.run(jobs[0], wanted, out / "data")
    assert json.loads(path.read_text())["judge"] == 99
    monkeypatch.undo()
    assert running.judge(jobs[0], wanted) == [[r] for r in json.loads(before)["records"]]


def test_another_runs_judgements_are_not_taken(made, tmp_path):
    f, _, wanted, out = made
    shutil.copytree(out, tmp_path / "mixed")
    base, ltr = running.jobs(f, 1, tmp_path / "mixed")
    own = (base.folder / "judged.json").read_bytes()
    shutil.copy(ltr.folder / "judged.json", base.folder / "judged.json")
    running.judge(base, wanted)
    assert (base.folder / "judged.json").read_bytes() == own


def test_pictures_in_another_order_are_refused(made, tmp_path):
    f, _, wanted, out = made
    shutil.copytree(out, tmp_path / "turned")
    job = running.jobs(f, 1, tmp_path / "turned")[0]
    (job.folder / "judged.json").unlink()
    manifest = json.loads((job.folder / "drawn" / "manifest.json").read_text())
    files.write_json(
        job.folder / "drawn" / "manifest.json", manifest | {"pictures": manifest["pictures"][::-1]}
    )
    with pytest.raises(InputError, match="pictures that are not in the order of the prompts"):
        running.judge(job, wanted)


def test_a_report_that_fails_leaves_none_beside_its_figures(made, tmp_path):
    f, _, wanted, out = made
    shutil.copytree(out, tmp_path / "cut")
    jobs = running.jobs(f, 1, tmp_path / "cut")
    report.write(f, jobs, wanted, tmp_path / "report", "x")
    with open(jobs[1].folder / "metrics.jsonl", "a") as lines:
        lines.write('{"step": ')
    with pytest.raises(InputError, match="ltr/seed0/metrics.jsonl is damaged"):
        report.write(f, jobs, wanted, tmp_path / "report", "x")
    assert not (tmp_path / "report" / "report.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost", [("drawn/000031.png", "drawn/grid.png"), ("checkpoints/4", "drawn")]
)
def test_a_run_that_was_stopped_continues(made, tmp_path, lost):
    """Without half of its pictures, or its last checkpoint, the same comes out."""
    f, _, wanted, out = made
    shutil.copytree(out, tmp_path / "stopped")
    job = running.jobs(f, 1, tmp_path / "stopped")[0]
    before = (job.folder / "judged.json").read_bytes()
    for name in ("done.json", "judged.json", *lost):
        path = job.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ablation.run(job, wanted, tmp_path / "stopped" / "data")
    assert (job.folder / "judged.json").read_bytes() == before


@pytest.mark.slow
def test_two_processes_share_a_family_and_its_data(tiny_llm, tmp_path):
    """Both want the data at once, of which neither has any; the one that ends last has the report."""
    (tmp_path / "family.py").write_text(
        f"from tests.ablation import tiny_family\n"
        f"def get_config(): return tiny_family.config_dict({tiny_llm('llama')!r})\n"
    )
    door = ("-m", "lidit_jax.ablate", f"--config={tmp_path}/family.py", f"--out={tmp_path}/out")
    ends = several.ended(*(several.start(*door, f"--share={i}/2") for i in range(2)))
    assert [e.status for e in ends] == [0, 0], ends
    assert len(list((tmp_path / "out").glob("runs/*/seed0/judged.json"))) == 2
    assert "refiner" in (tmp_path / "out" / "report" / "report.md").read_text()
    once = "is complete: 48 pictures"
    assert all(once in end.out for end in ends)
    (told,) = several.ended(several.start(*door, "--report", "--seeds=2"))
    assert told.status == 0 and "2 runs are not done in" in told.out and "report: " in told.out
    assert not list((tmp_path / "out").glob("runs/*/seed1"))


def test_another_config_in_the_same_folder_is_refused(made, tiny_llm):
    f, jobs, wanted, out = made
    with pytest.raises(InputError, match="is from other prompts; .*the trained model is kept"):
        running.is_drawn(jobs[0], running.items(family(tiny_llm("llama"), prompts=64)))
    other = running.jobs(f, 2, out)[2]
    moved = running.Job(other.name, other.seed, other.config, jobs[0].folder)
    with pytest.raises(InputError, match="is from another config .seed: 0 there, 1 now.; "):
        ablation.run(moved, wanted, out / "data")


def test_a_run_is_its_own_under_a_config_of_later_keys_and_of_keys_that_decide_nothing(
    made, tmp_path
):
    _, jobs, wanted, _ = made
    folder = shutil.copytree(jobs[1].folder, tmp_path / "run")
    saved = files.read_json(folder / "config.json", "config")
    del saved["model"]["conditioner"]["context"]  # as if there had been no such key
    files.write_json(folder / "config.json", saved)
    done = files.read_json(folder / "done.json", "run")
    files.write_json(folder / "done.json", done | {"run": "of another set of keys"})
    job = dataclasses.replace(jobs[1], folder=folder)
    assert running.is_drawn(job, wanted)
    train = dataclasses.replace(job.config.train, log_every=3, watchdog_minutes=7.0)
    assert running.is_drawn(
        dataclasses.replace(job, config=dataclasses.replace(job.config, train=train)), wanted
    )
    codec = dataclasses.replace(job.config.data, codec="latents:4x3")
    with pytest.raises(InputError, match="config .data.codec: 'pixels' there, 'latents:4x3' now"):
        other = dataclasses.replace(job.config, data=codec)
        running.is_drawn(dataclasses.replace(job, config=other), wanted)
    sample = dataclasses.replace(job.config.sample, guidance=9.0)
    other = dataclasses.replace(job, config=dataclasses.replace(job.config, sample=sample))
    with pytest.raises(InputError, match="config .sample.guidance: .* there, 9.0 now.; use"):
        running.is_drawn(other, wanted)


def test_what_would_come_up_at_a_runs_turn_is_told_before_the_first(made, tmp_path):
    _, jobs, wanted, out = made
    running.check(jobs, wanted, out / "data")
    missing = dataclasses.replace(jobs[1].config.encoders[0], model=str(tmp_path / "none"))
    config = dataclasses.replace(jobs[1].config, encoders=(missing,))
    job = dataclasses.replace(jobs[1], config=config, folder=tmp_path / "run")
    with pytest.raises(InputError, match="no such model folder"):
        running.check([jobs[0], job], wanted, out / "data")
    with pytest.raises(InputError, match="is from another config .encoders.tiny0.model: "):
        running.check([dataclasses.replace(job, folder=jobs[1].folder)], wanted, out / "data")


def test_the_report_has_every_run_claim_and_figure(made, tmp_path):
    f, jobs, wanted, _ = made
    path = report.write(f, jobs, wanted, tmp_path, "python -m x")
    text = path.read_text()
    for name in f.runs:
        assert f"`{name}`" in text
    assert "| refiner | `ltr > base` |" in text and "python -m x" in text
    assert " for 4 steps of 8 " in text and "same batches and noise" in text
    for job in jobs:
        assert f"| {report.parameters(job):,} |" in text
    assert report.parameters(jobs[1]) > report.parameters(jobs[0]) > 10_000
    assert "**undecided: too few seeds**" in text
    figures = re.findall(r"\]\((\w+\.png)\)", text)
    assert len(figures) == len(set(figures)) >= 2
    for figure in figures:
        assert min(Image.open(tmp_path / figure).size) > 200
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["scores"]) == set(f.runs) and set(found["claims"]) == {"refiner"}
    value, low, high = found["scores"]["base"]["shape"]
    assert 0 <= low <= value <= high <= 1
    assert found["by_seed"]["base"] == {
        "0": {m: v for m, (v, *_) in found["scores"]["base"].items()}
    }
    (spread,) = found["spreads"]
    assert spread["runs"] == list(f.runs) and spread["freedom"] == 0


def test_a_report_tells_what_runs_differ_in_besides_the_papers_switches(made, tmp_path):
    """Of runs that are told apart by nothing else: a family may change what it likes."""
    f, jobs, wanted, _ = made
    ltr = f.runs["ltr"]
    changed = dataclasses.replace(ltr, train=dataclasses.replace(ltr.train, batch_size=4))
    text = report.write(
        dataclasses.replace(f, runs=f.runs | {"ltr": changed}), jobs, wanted, tmp_path, "x"
    ).read_text()
    assert "| train.batch_size 4 |" in text
    assert "steps of 8" not in text and "same batches" not in text


def test_a_report_of_some_runs_says_nothing_of_the_others(made, tmp_path):
    f, jobs, wanted, _ = made
    text = report.write(f, jobs[:1], wanted, tmp_path, "x").read_text()
    assert "`ltr`" not in text and "`base`" in text and "refiner |" not in text


def test_the_probe_reads_what_a_runs_dit_sees(made):
    """One state a token of the prompt, whatever prompts are read beside it."""
    _, jobs, _, _ = made
    for job in jobs:
        encoder, drawn = states.only_encoder(job.folder), prompts.draw(3)
        read = states.Reading(encoder, drawn)
        seen = states.conditions(job.folder, read)
        assert [s.shape for s in seen] == [(len(f), 32) for f in read.features]
        alone = states.conditions(job.folder, states.Reading(encoder, drawn[:1]))
        np.testing.assert_allclose(alone[0], seen[0], atol=1e-4)


def test_the_probe_finds_an_llm_where_it_is_now(made, tiny_llm, tmp_path):
    _, jobs, _, _ = made
    runs, drawn = {"ltr": jobs[1].folder}, prompts.draw(400)
    there = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    here = probe._found(runs, drawn, {"tiny0": str(there)}, None)
    assert here["ltr"] == probe._found(runs, drawn, {}, None)["ltr"]
    with pytest.raises(InputError, match="no such model folder"):
        probe._found(runs, drawn, {"tiny0": str(tmp_path / "none")}, None)
    with pytest.raises(InputError, match="unknown encoder of the run 'x'; known: tiny0"):
        probe._found(runs, drawn, {"x": str(there)}, None)


def test_the_probe_refuses_other_weights_than_the_runs(made, tiny_llm):
    _, jobs, _, _ = made
    encoder = states.only_encoder(jobs[0].folder)
    other = dataclasses.replace(encoder, model=tiny_llm("gemma3"), prefix_len=0, width=0)
    with pytest.raises(InputError, match="its weights are not those of encoder 'tiny0'"):
        states.conditions(jobs[0].folder, states.Reading(other, prompts.draw(3)))
