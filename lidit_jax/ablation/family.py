"""A family of runs: one base config, and what each run changes in it."""

import copy
import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from lidit_jax import errors
from lidit_jax.ablation import claims
from lidit_jax.evaluation import seeing_scenes
from lidit_jax.evaluation.benchmarks.scenes import METRICS
from lidit_jax.models.conditioners import CONDITIONERS
from lidit_jax.training import config as training_config
from lidit_jax.training.config import Config

_KINDS = {
    "base": ConfigDict,
    "runs": ConfigDict,
    "paper": ConfigDict,
    "claims": ConfigDict,
    "metrics": tuple,
    "prompts": int,
    "unsteady": tuple,
}


@dataclasses.dataclass(frozen=True)
class Family:
    """See configs/ablations.py.

    runs: name -> the whole config. paper: name -> the paper's T2I-avg and DPG-avg.
    claims: name -> an inequality of runs, such as "ltr - base > t5_ltr - t5".
    metrics: metrics of the benchmark; the first one decides the claims.
    prompts: how many prompts the runs are judged by.
    unsteady: runs whose seeds vary more, or less, than those of the others; see `comparing`.
    """

    runs: dict[str, Config]
    paper: dict[str, tuple[float, ...]]
    claims: dict[str, claims.Claim]
    metrics: tuple[str, ...]
    prompts: int
    unsteady: tuple[str, ...]

    def only(self, names: Sequence[str]) -> "Family":
        """Returns the family with only these runs, in its own order, and the claims about them.

        Raises InputError for an unknown run.
        """
        for name in names:
            if name not in self.runs:
                raise errors.unknown_name("run", name, self.runs)
        return dataclasses.replace(
            self,
            runs={name: c for name, c in self.runs.items() if name in names},
            claims={k: c for k, c in self.claims.items() if c.runs <= set(names)},
            unsteady=tuple(name for name in self.unsteady if name in names),
        )


def parse(config: ConfigDict) -> Family:
    """Returns the family of a config.

    Raises InputError for a key that is missing, unknown or of the wrong type.
    """
    _check_kinds(config)
    runs = {name: _run(config, name) for name in config.runs}
    stated = {name: claims.parse(text) for name, text in config.claims.items()}
    for name, claim in stated.items():
        for run in sorted(claim.runs - set(runs)):
            raise errors.unknown_name(f"run in config.claims.{name}", run, runs)
    for name in config.unsteady:
        if name not in runs:
            raise errors.unknown_name("run in config.unsteady", name, runs)
    errors.check_range("config.prompts", config.prompts, 1)
    paper = {name: tuple(config.paper[name]) for name in config.paper}
    _check(runs, paper, config.metrics)
    return Family(
        runs, paper, stated, tuple(config.metrics), config.prompts, tuple(config.unsteady)
    )


def _check_kinds(config: ConfigDict):
    for key, kind in _KINDS.items():
        if key not in config:
            raise errors.InputError(
                f"config.{key} is missing: want a family of runs, such as configs/ablations.py"
            )
        _check_kind(f"config.{key}", config[key], kind)
    for key in config:
        if key not in _KINDS:
            raise errors.unknown_name("key in config", key, _KINDS)
    for name in config.runs:
        if not name.isidentifier():
            raise errors.InputError(f"a run is named {name!r}; want a name such as ltr_causal")
        _check_kind(f"config.runs.{name}", config.runs[name], ConfigDict)
    for name in config.claims:
        _check_kind(f"config.claims.{name}", config.claims[name], str)
    if not config.runs:
        raise errors.InputError("config.runs is empty; want at least one run")


def _check_kind(where: str, value: object, kind: type):
    if not isinstance(value, kind):
        raise errors.InputError(f"{where} is {value!r}; want a {kind.__name__}")


def _check(runs: dict[str, Config], paper: dict[str, tuple[float, ...]], metrics: Sequence[str]):
    """Raises InputError for mistakes that would only show after hours of training."""
    for name, config in runs.items():
        if config.task != "diffusion" or config.data.source != "scenes":
            raise errors.InputError(
                f"run {name} has task {config.task!r} and source {config.data.source!r}; want task "
                f"'diffusion' and source 'scenes'"
            )
        errors.check_range(
            f"a side of data.size of run {name}", min(config.data.size), seeing_scenes.MIN_SIDE
        )
        if config.data != next(iter(runs.values())).data:
            raise errors.InputError(f"config.runs.{name} changes data, which all runs must share")
        if config.seed != next(iter(runs.values())).seed:
            raise errors.InputError(f"config.runs.{name} changes seed; use --seeds for that")
        used = _used(config)
        if same := [other for other in runs if other != name and _used(runs[other]) == used]:
            raise errors.InputError(
                f"runs {name} and {same[0]} differ only in unused settings; leave one out"
            )
    for name, numbers in paper.items():
        if name not in runs:
            raise errors.unknown_name("run in config.paper", name, runs)
        if len(numbers) not in (0, 2) or not all(isinstance(n, float | int) for n in numbers):
            raise errors.InputError(
                f"config.paper.{name} is {numbers}; want (T2I-avg, DPG-avg), or ()"
            )
    if not metrics:
        raise errors.InputError("config.metrics is empty; its first metric decides the claims")
    for name in metrics:
        if name not in METRICS:
            raise errors.unknown_name("metric in config.metrics", name, METRICS)


def _used(config: Config) -> Config:
    """Returns the config with the conditioner's switches that do nothing set to their defaults."""
    c = config.model.conditioner
    unused = CONDITIONERS[c.name].unused(c, len(config.encoders))
    defaults = {f.name: f.default for f in dataclasses.fields(c) if f.name in unused}
    model = dataclasses.replace(config.model, conditioner=dataclasses.replace(c, **defaults))
    return dataclasses.replace(config, model=model)


def _run(config: ConfigDict, name: str) -> Config:
    whole = copy.deepcopy(config.base)
    try:
        whole.update(config.runs[name])
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        why = str(e).splitlines()[0]
        raise errors.InputError(f"config.runs.{name} does not fit config.base: {why}") from e
    try:
        return training_config.parse(whole)
    except errors.InputError as e:
        raise errors.InputError(f"config.runs.{name}: {e}") from e
