"""A family of runs: each is the base with what it changes; what does not fit is refused."""

import pytest
from ml_collections import ConfigDict

from configs import ablations
from lidit_jax import ablation
from lidit_jax.ablation import running
from lidit_jax.errors import InputError
from tests.tiny import load_config


@pytest.fixture
def config():
    return ablations.get_config("smoke")


def test_every_run_is_the_base_but_for_its_switches(config):
    family = ablation.parse(config)
    assert list(family.runs)[:2] == ["base", "base_instr"] and len(family.runs) == 16
    for name, run in family.runs.items():
        switches = (ablations.RUNS | ablations.EXTRA)[name]
        assert run.train == family.runs["base"].train and run.data == family.runs["base"].data
        assert len(run.encoders) == len(switches.llms)
        assert [e.instruction for e in run.encoders] == [switches.instruction] * len(switches.llms)
        c = run.model.conditioner
        assert c.name == ("infused" if switches.refiners else "direct")
        if switches.refiners:
            assert (c.n_ltr, c.gating, c.ltr_mask, c.fusion) == (
                switches.refiners,
                switches.gating,
                switches.mask,
                switches.fusion,
            )


def test_runs_differ_from_one_another(config):
    runs = list(ablation.parse(config).runs.values())
    assert all(a != b for i, a in enumerate(runs) for b in runs[:i])


def test_the_papers_claims_hold_of_the_papers_numbers(config):
    family = ablation.parse(config)
    papers = {name: numbers[0] for name, numbers in family.paper.items() if numbers}
    claimed = {run for name in ablations.CLAIMS for run in family.claims[name].runs}
    assert papers.keys() - claimed == {"base_instr"}  # which the paper finds as good as base
    for name in ablations.CLAIMS:
        assert family.claims[name].margin(papers) > 0, name


def test_some_runs_and_the_claims_about_them(config):
    family = ablation.parse(config).only(["ltr", "base", "ltr1"])
    assert list(family.runs) == ["base", "ltr", "ltr1"]
    assert set(family.claims) == {"refiner", "first_block", "second_block"}
    assert family.unsteady == ()
    assert ablation.parse(config).only(["ltr_nogate", "ltr"]).unsteady == ("ltr_nogate",)
    with pytest.raises(InputError, match="unknown run 'ltr2'; known: ltr, ltr3, ltr1"):
        ablation.parse(config).only(["ltr2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.claims.update(x="ltr > nothing"), "unknown run in config.claims.x 'nothing'"),
        (lambda c: c.claims.update(x="ltr"), "'ltr' is not a claim"),
        (lambda c: c.runs.update(x=ConfigDict({"modle": 1})), "modle"),
        (lambda c: c.update(prompts=0), "config.prompts is 0"),
        (lambda c: c.update(typo=1), "unknown key in config 'typo'"),
        (
            lambda c: c.update(metrics=("bindign",)),
            "unknown metric in config.metrics 'bindign'; known: binding",
        ),
        (lambda c: c.update(unsteady=("ltr9",)), "unknown run in config.unsteady 'ltr9'"),
        (lambda c: c.update(metrics=()), "config.metrics is empty"),
        (lambda c: c.update(metrics="binding"), "config.metrics is 'binding'; want a tuple"),
        (lambda c: c.update(prompts="32"), "config.prompts is '32'; want a int"),
        (lambda c: setattr(c, "runs", ConfigDict()), "config.runs is empty"),
        (lambda c: c.runs.update(x=5), "config.runs.x is 5; want a ConfigDict"),
        (lambda c: c.claims.update(x=5), "config.claims.x is 5; want a str"),
        (lambda c: c.runs.update({"a/b": ConfigDict()}), "a run is named 'a/b'"),
        (lambda c: c.runs.update(x=c.runs.ltr), "runs ltr and x differ only in"),
        (
            lambda c: c.runs.update(
                x=ConfigDict({"model": {"conditioner": {"name": "direct", "n_ltr": 7}}})
            ),
            "runs base_instr and x differ only in unused settings",
        ),
        (
            lambda c: c.runs.ltr.update(objective=ConfigDict({"schedule": "linear"})),
            "config.runs.ltr: sampler 'euler' is for schedule 'flow'",
        ),
        (
            lambda c: c.runs.update(x=ConfigDict({"seed": 7})),
            "config.runs.x changes seed; use --seeds",
        ),
        (lambda c: c.base.update(task="vae"), "run base has task 'vae'"),
        (
            lambda c: c.base.data.update(size=(24, 24)),
            "data.size of run base is 24; use 32 or more",
        ),
        (lambda c: c.paper.update(ltr=("a", "b")), "config.paper.ltr is"),
        (lambda c: c.paper.update(x=(1.0, 2.0)), "unknown run in config.paper 'x'"),
        (lambda c: c.paper.update(ltr=(1.0,)), "config.paper.ltr is .*; want .T2I-avg, DPG-avg."),
        (
            lambda c: c.base.data.update(source="shapes"),
            "run base has task 'diffusion' and source 'shapes'",
        ),
        (
            lambda c: c.runs.ltr.update(data=ConfigDict({"size": (32, 32)})),
            "config.runs.ltr changes data",
        ),
    ],
)
def test_a_mistake_is_refused(config, change, message):
    config.unlock()
    for part in (config.paper, config.runs, config.runs.ltr, config.claims):
        part.unlock()
    with config.ignore_type():
        change(config)
    with pytest.raises(InputError, match=message):
        ablation.parse(config)


def test_another_config_is_no_family():
    with pytest.raises(InputError, match="config.base is missing: want a family of runs"):
        ablation.parse(load_config("quickstart", "smoke"))


def test_jobs_have_every_run_of_a_seed_before_the_next(config, tmp_path):
    family = ablation.parse(config).only(["base", "ltr"])
    jobs = running.jobs(family, 2, tmp_path)
    assert [(j.name, j.seed, j.config.seed) for j in jobs] == [
        ("base", 0, 0),
        ("ltr", 0, 0),
        ("base", 1, 1),
        ("ltr", 1, 1),
    ]
    assert len({j.folder for j in jobs}) == len({j.identity for j in jobs}) == 4
