"""What docs/extending.md says can be done by hand gives what the library gives."""

import pathlib
import re

import numpy as np

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "extending.md"


def test_the_loop_of_the_page_draws_the_generators_pictures(workdir):
    (code,) = re.findall(r"```\n(import jax\n.*?)```", PAGE.read_text(), re.DOTALL)
    scale = re.search(r"scale_B = (.*)", code)[1]
    alike = code.replace("out/quickstart/run", str(workdir)).replace(
        scale, "generator.sample.guidance"
    )
    there = {}
    exec(alike, there)
    wanted = there["generator"](["red heart", "hot dog"], seeds=[0, 1])
    found = there["pictures"]
    assert found.shape == wanted.shape and found.std() > 1
    assert np.abs(found.astype(int) - wanted).max() <= 1
    exec(code.replace("out/quickstart/run", str(workdir)), there)
    assert (there["pictures"] != found).any()
