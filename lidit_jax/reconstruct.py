"""Encodes and decodes the held-out pictures of a config with a VAE.

python -m lidit_jax.reconstruct --config=configs/vae_openmoji.py --vae=VAE --out=DECODED
"""

from lidit_jax import doors
from lidit_jax.autoencoding import reconstruct
from lidit_jax.preparation import held_out, references

_vae = doors.define_folder("vae", "folder of a VAE, as written by lidit_jax.export or diffusers")
_out = doors.define_folder("out", "folder for the pictures, originals/, grid.png and manifest.json")


def main():
    every = references(held_out(doors.config()))
    pictures = ((captions, image) for captions, image in every if image is not None)
    print(f"grid: {reconstruct(str(_vae()), pictures, _out())}")


if __name__ == "__main__":
    doors.run(main)
