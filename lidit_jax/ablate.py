r"""Trains and judges runs that differ in one switch each, and reports whether the switches help.

python -m lidit_jax.ablate --config=configs/ablations.py --runs=base,ltr,ltr_causal --seeds=3 \
    --out=out/ablations
"""

from absl import flags

from lidit_jax import ablation, doors, errors, files
from lidit_jax.ablation import report, running
from lidit_jax.evaluation import figures
from lidit_jax.training import heap

_out = doors.define_folder("out", "folder for the data set, the runs and report/")
_RUNS = flags.DEFINE_list("runs", None, "names of runs in the config; default: all")
_SEEDS = flags.DEFINE_integer("seeds", 1, "seeds per run: 0, 1, ...", lower_bound=1)
_share = doors.define_share(
    "start only every n-th run, from the i-th; other machines start the others"
)
_REPORT = flags.DEFINE_bool("report", False, "start no run; report on those that are done")


def main():
    heap.compute_here()
    family = doors.config(ablation.parse)
    if _RUNS.value is not None:
        family = family.only([name for name in _RUNS.value if name])
    if not family.runs:
        raise errors.InputError("--runs names no run; omit it for all runs of the config")
    files.check_own_folder(_out(), "out")
    wanted, jobs = running.items(family), running.jobs(family, _SEEDS.value, _out())
    mine = _share()
    figures.check()
    made = () if _REPORT.value else mine.of(len(jobs))
    running.check([jobs[i] for i in made], wanted, _out() / "data")
    for i in made:
        print(f"run {i + 1} of {len(jobs)}: {jobs[i].name}, seed {jobs[i].seed}", flush=True)
        ablation.run(jobs[i], wanted, _out() / "data")
    with files.locked(_out() / "report.lock"):  # other shares write it too
        left = [f"{j.name}, seed {j.seed}" for j in jobs if not running.is_drawn(j, wanted)]
        if left:
            print(f"{len(left)} runs are not done in {_out()} yet: {'; '.join(left)}")
        command = doors.command("ablate")
        if len(left) < len(jobs):
            print(f"report: {report.write(family, jobs, wanted, _out() / 'report', command)}")


if __name__ == "__main__":
    doors.run(main, reads=True, less="a smaller base.train.batch_size or base.sample.batch_size")
