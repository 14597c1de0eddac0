import json
import os
import pathlib

import pytest
from PIL import Image

from lidit_jax.evaluation import pictures

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def official():
    """The folder of the benchmarks' official prompt files, one folder each; skips where there is none.

    Looked for under $LIDIT_JAX_EVAL_PROMPTS, and as a folder eval_prompts near the checkout.
    """
    given = os.environ.get("LIDIT_JAX_EVAL_PROMPTS")
    folders = [pathlib.Path(given)] if given else sorted(ROOT.parent.glob("*/eval_prompts"))
    if not folders:
        pytest.skip(
            "the benchmarks' prompt files are not here; $LIDIT_JAX_EVAL_PROMPTS may say where"
        )
    return folders[0]


@pytest.fixture
def samples(tmp_path):
    """Returns a function that writes (prompt, image) pairs as a folder of samples and reads it."""

    def write(pairs):
        entries = []
        for i, (prompt, image) in enumerate(pairs):
            entries.append({"file": f"{i:06d}.png", "prompt": prompt, "seed": i})
            Image.fromarray(image).save(tmp_path / entries[-1]["file"])
        (tmp_path / pictures.MANIFEST).write_text(json.dumps({"pictures": entries, "steps": 30}))
        return pictures.read(tmp_path)

    return write
