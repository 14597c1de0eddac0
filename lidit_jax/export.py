"""A trained run -> a folder to give away: a VAE as diffusers saves it, a diffusion model as a run
to draw from.

python -m lidit_jax.export --workdir=RUN --out=MODEL
python -m lidit_jax.export --workdir=RUN --data=DATA --out=VAE
"""

from absl import flags

from lidit_jax import autoencoding, doors, errors, processes
from lidit_jax.training import checkpoints
from lidit_jax.training.trained import read_config

_workdir = doors.define_folder("workdir", "folder of a trained run")
_out = doors.define_folder("out", "folder for config.json and the weights")
_data = doors.define_folder(
    "data",
    "of a VAE: folder of the pixels that it was trained on, to measure its scaling_factor by",
    optional=True,
)
_CHECKPOINT = flags.DEFINE_integer(
    "checkpoint", None, "step of the checkpoint to export; default: the last", lower_bound=1
)


def main():
    if read_config(_workdir()).task == "vae":
        step = autoencoding.export(_workdir(), _out(), _data(), _CHECKPOINT.value)
        print(f"{_out()}: the VAE of step {step}")
    else:
        processes.use_cpu(1)  # the run may be training on the accelerator
        if _data():
            raise errors.InputError(f"--data has no effect: {_workdir()} is not a run of a VAE")
        print(
            f"{_out()}: the model of step "
            f"{checkpoints.export(_workdir(), _out(), _CHECKPOINT.value)}"
        )


if __name__ == "__main__":
    doors.run(main, configured=False)
