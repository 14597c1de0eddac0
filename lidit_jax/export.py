"""Exports a trained VAE to a folder that `data.codec` can name, and that diffusers can read.

python -m lidit_jax.export --workdir=out/vae_openmoji/run --out=out/vae_openmoji/vae
"""

from lidit_jax import doors
from lidit_jax.autoencoding import export

_workdir = doors.define_folder("workdir", "folder of a trained VAE's run")
_out = doors.define_folder("out", "folder for config.json and the weights")


def main():
    print(f"{_out()}: the VAE of step {export(_workdir(), _out())}")


if __name__ == "__main__":
    doors.run(main, configured=False)
