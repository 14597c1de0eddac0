import json

import pytest
from PIL import Image

from lidit_jax.evaluation import pictures


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
