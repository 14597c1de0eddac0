"""The command line of `sample`: which pictures are asked for."""

import ast
import os
import subprocess
import sys

ASKED = """
import sys
from absl import flags
from lidit_jax import sample

sample.sample_config = sample.Generator = lambda *args, **options: None
sample.generate = lambda generator, wanted, seeds, out, share: print(
    [(p.text, p.size, seed) for p, seed in zip(wanted, seeds, strict=True)]
)
flags.FLAGS(sys.argv)
sample.main()
"""


def asked(*arguments):
    """Returns (prompt, size, seed) of every picture that a command wants."""
    command = [sys.executable, "-c", ASKED, "--workdir=run", "--out=out", *arguments]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    told = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return ast.literal_eval(told.stdout.splitlines()[-1])


def test_each_picture_of_each_prompt_has_the_next_seed_and_the_size_that_is_asked_for():
    found = asked("--prompt=a", "--prompt=b", "--per_prompt=2", "--seed=5", "--size=8,24")
    assert found == [("a", (8, 24), 5), ("a", (8, 24), 6), ("b", (8, 24), 7), ("b", (8, 24), 8)]
    assert asked("--prompt=a") == [("a", None, 0)]
