"""Samples pictures from a trained run: writes PNGs, a grid and a manifest.

python -m lidit_jax.sample --workdir=out/quickstart/run --prompt="red heart" --out=out/mine
"""

import pathlib

import jax
from absl import flags

from lidit_jax import doors, errors, prompts, sharding
from lidit_jax.data import plan
from lidit_jax.diffusion.samplers import SAMPLERS
from lidit_jax.generation import Generator, check_wanted, generate, sample_config

_workdir = doors.define_folder("workdir", "folder of a trained run")
_out = doors.define_folder("out", "folder for the pictures, grid.png and manifest.json")
_PROMPT = flags.DEFINE_multi_string("prompt", [], "a prompt; may be given several times")
_PROMPTS = flags.DEFINE_string("prompts", None, "a .txt with one prompt per line, or a .jsonl")
_SIZE = flags.DEFINE_list(
    "size", None, "height,width in pixels; default: the prompt's size, or else the training size"
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "picture k is sampled with seed + k", lower_bound=0, upper_bound=2**31
)
_PER_PROMPT = flags.DEFINE_integer("per_prompt", 1, "pictures per prompt", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance", None, "guidance scale, 1 = off; default: the run's")
_NEGATIVE = flags.DEFINE_string(
    "negative_prompt", "", "guidance leads away from it in every picture; default: the empty prompt"
)
_SAMPLER = flags.DEFINE_string("sampler", None, f"{', '.join(SAMPLERS)}; default: the run's")
_STEPS = flags.DEFINE_integer("steps", None, "sampling steps; default: the run's")
_moved = doors.define_moved()
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "pictures sampled at once, over all devices; default: the run's"
)
_share = doors.define_share("sample only the i-th of n shares; other machines do the others")
_MESH = flags.DEFINE_string(
    "mesh",
    None,
    "replica,fsdp,tensor of this machine's devices, -1 = all that remain; default: a copy of the "
    "weights on each, or a large model sharded over all (1,-1,1)",
)
_CHECKPOINT = flags.DEFINE_integer(
    "checkpoint", None, "step of the checkpoint to use; default: the last", lower_bound=1
)
_ETA = flags.DEFINE_float("eta", None, "fresh noise of ddim, 0 to 1; default: the run's")


def main():
    wanted = [prompts.Prompt(text) for text in _PROMPT.value]
    if _PROMPTS.value:
        path = pathlib.Path(_PROMPTS.value).expanduser()
        wanted += prompts.read(path)
        plan.check_prompts(path)
    if not wanted:
        raise errors.InputError('no prompt given; use --prompt="a red heart" or --prompts=FILE')
    size = tuple(_number(s) for s in _SIZE.value) if _SIZE.value else None
    if size and len(size) != 2:
        raise errors.InputError(f"--size={','.join(_SIZE.value)}: want height,width in pixels")
    mine = _share()
    mesh = None
    if _MESH.value:
        mesh = sharding.make_mesh(doors.mesh_sizes(_MESH.value), jax.local_devices())
    llms, vae = _moved()
    wanted = [
        prompts.Prompt(p.text, size or p.size) for p in wanted for _ in range(_PER_PROMPT.value)
    ]
    sample = sample_config(
        _workdir(),
        guidance=_GUIDANCE.value,
        batch_size=_BATCH_SIZE.value,
        name=_SAMPLER.value,
        steps=_STEPS.value,
        eta=_ETA.value,
    )
    seeds = [_SEED.value + k for k in range(len(wanted))]
    check_wanted(wanted, seeds)
    generator = Generator(_workdir(), sample, llms, vae, mesh, _CHECKPOINT.value, _NEGATIVE.value)
    if grid := generate(generator, wanted, seeds, _out(), mine):
        print(f"grid: {grid}")


def _number(text):
    if not text.strip().isdecimal():
        raise errors.InputError(f"--size: {text!r} is not a number of pixels; want height,width")
    return int(text)


if __name__ == "__main__":
    doors.run(main, reads=True, configured=False, less="fewer pictures at once (--batch_size)")
