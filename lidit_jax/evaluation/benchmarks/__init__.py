"""Benchmarks: official prompts, judges' records of pictures, and the published way to score them.

benchmark        what one is: prompts, records, a pure scoring
prompt_files     the official files: where they are published, and what they must be
geneval          objects, numbers, colours, places; geneval_rules, its pure rules
compbench        attributes with their objects, relations, numbers: T2I-CompBench
dpg              dense prompts, question by question: DPG-Bench
positional       by place in the prompt: the paper's own benchmark; see evaluation.positional
scenes           held-out prompts of the scenes world, judged without a model

measuring        pictures -> results.json and a table beside the paper's
judging          pictures -> records
    matching     are they the pictures of these prompts?
    journal      records on disk, as they come
comparability    what makes a number another measure than the published one
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lidit_jax.evaluation.benchmarks import positional
from lidit_jax.evaluation.benchmarks.benchmark import Benchmark
from lidit_jax.evaluation.benchmarks.compbench.suite import CompBench
from lidit_jax.evaluation.benchmarks.dpg import DPG
from lidit_jax.evaluation.benchmarks.geneval import GenEval
from lidit_jax.evaluation.benchmarks.scenes import Scenes

# name, as --suite has it -> a benchmark
BENCHMARKS: dict[str, Benchmark] = {
    "geneval": GenEval(),
    "compbench": CompBench(),
    "dpg": DPG(),
    "positional": positional.Positional(),
    "scenes": Scenes(),
}

# name -> what draws results, label -> content of results.json, side by side into a folder
FIGURES: dict[str, Callable[[Path, Mapping[str, Mapping[str, Any]]], Path]] = {
    "positional": positional.draw,
}
