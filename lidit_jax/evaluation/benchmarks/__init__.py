"""Benchmarks: official prompts, judges' records of pictures, and the published scoring rules.

benchmark        the interface: prompts, records, pure scoring
prompt_files     the official files: where they are published, and how they are checked
geneval          objects, numbers, colours, places; geneval_rules, its pure rules
compbench        attributes with their objects, relations, numbers: T2I-CompBench
dpg              dense prompts, question by question: DPG-Bench
positional       by place in the prompt: the paper's own benchmark; see evaluation.positional
scenes           held-out prompts of the scenes world, judged without a model

measuring        pictures -> results.json and a table with the paper's numbers
judging          pictures -> records
    matching     do the pictures belong to these prompts?
    journal      records on disk, written one by one
comparability    what makes a number differ from the published measure
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

# name for --suite -> benchmark
BENCHMARKS: dict[str, Benchmark] = {
    "geneval": GenEval(),
    "compbench": CompBench(),
    "dpg": DPG(),
    "positional": positional.Positional(),
    "scenes": Scenes(),
}

# name -> function that plots results (label -> content of results.json) side by side into a folder
FIGURES: dict[str, Callable[[Path, Mapping[str, Mapping[str, Any]]], Path]] = {
    "positional": positional.draw,
}
