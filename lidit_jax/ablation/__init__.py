"""Runs that differ in one switch, judged alike: does the switch help, and how sure is that?

family   a config of several runs                 claims     "ltr > base", for uncertain values
running  each run: prepare, train, draw, judge    comparing  scores of runs, by prompts and seeds
report   the results, as a page with pictures     plots      its figures
"""

from lidit_jax.ablation.family import Family, parse
from lidit_jax.ablation.running import Job, run

__all__ = ["Family", "Job", "parse", "run"]
