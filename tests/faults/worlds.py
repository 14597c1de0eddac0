"""Three tiny real runs to disturb: their data sets, config files and commands."""

import dataclasses
import importlib.util
import pathlib

from lidit_jax import preparation
from lidit_jax.training.config import parse
from tests import several, tiny_llms, tiny_prepared, tiny_sources

STEPS, SAVE_EVERY = 120, 12  # saving takes as long as a dozen steps
HEAD = """
from tests import tiny

def get_config():
    c = tiny.config_dict({llms!r}, steps={steps}, save_every={every}, keep=2, log_every=1, preview_every=24)
    c.model.depth = 1
    c.model.conditioner.n_ltr = 1
    c.optim.decay = "constant"  # or the number of steps is part of the run
"""
BINS = """
    c.data.source, c.data.options = "folder", {{"path": {raw!r}}}
    c.data.size, c.data.bins, c.data.bin_step, c.data.min_bin = (32, 32), "grid33", 8, 8
    c.data.rules, c.data.hold_out = (), 0.25
    c.train.log_every = 5  # some are after a resume, of steps before it too
"""
MORE = {"pixels": "", "bins": BINS, "two_llms": ""}
FAMILIES = ("llama", "gemma3")


@dataclasses.dataclass(frozen=True)
class World:
    """A run that can be started, saved every `every` of its `steps`: its config file and data set.

    held_out: a data set on which each checkpoint is scored.
    """

    name: str
    config: pathlib.Path
    data: pathlib.Path
    steps: int = STEPS
    every: int = SAVE_EVERY
    held_out: pathlib.Path | None = None

    def command(self, workdir: pathlib.Path, *more: str) -> list[str]:
        """Returns the training command's arguments, for one process with one device."""
        if self.held_out:
            more = (f"--held_out={self.held_out}", *more)
        return several.door(self.config, self.data, workdir, "--cpu_devices=1", *more)


def make(
    name: str,
    folder: pathlib.Path,
    llms: list[str] | None = None,
    steps: int = STEPS,
    every: int = SAVE_EVERY,
) -> World:
    """Returns the world of this name, prepared in `folder` unless it is already there.

    llms: folders of two LLMs; None: tiny ones, saved in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    llms = llms or [str(folder / "llms" / family) for family in FAMILIES]
    for family, path in zip(FAMILIES, llms):
        if not pathlib.Path(path).exists():
            tiny_llms.save(family, path)
    raw = folder / "raw"
    if name == "bins" and not raw.exists():
        for copy in "012345":
            tiny_sources.write_folder(raw / copy)
    used = llms if name == "two_llms" else llms[:1]
    text = (HEAD + MORE[name] + "    return c\n").format(
        llms=used, steps=steps, every=every, raw=str(raw)
    )
    config = folder / f"{name}.py"
    config.write_text(text)
    parsed, held_out = parse(_config_dict(config)), None
    preparation.prepare(parsed, folder / name)
    if parsed.data.hold_out:
        held_out = folder / f"{name}_held_out"
        data = dataclasses.replace(parsed.data, part="held_out")
        preparation.prepare(dataclasses.replace(parsed, data=data), held_out)
    shard = sorted((folder / name / "images").rglob("latents-*"))[0]
    tiny_prepared.change_record(shard, 3, tiny_prepared.not_finite)  # so that there is a ledger
    return World(name, config, folder / name, steps, every, held_out)


def _config_dict(path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()
