"""The paper's ablations at its own scale (section 4.3): LI-DiT-1B, 256 px, 300k steps of batch 256.

python -m lidit_jax.prepare --config=configs/ablations_paper.py:ltr,webdataset \
    --config.data.options.path=TARS --config.data.codec=VAE --data=DATA
python -m lidit_jax.train --config=configs/ablations_paper.py:ltr,webdataset \
    --config.data.codec=VAE --data=DATA --workdir=RUN

All runs share DATA. Run `prepare` once for each: the first makes the pictures, later ones add an
LLM's features; each run needs its own --workdir, and `evaluate --suite=compbench` judges it.
ImageNet and CC12M together are a `mixture` of two sources, in a config of your own that starts from
this one (docs/data.md); without aesthetic scores, see lidit_1b.

The argument is a run of configs/ablations.py (by default `full`, the last row of Table 2), and an
argument of lidit_1b: a source of lidit_jax.data.sources, or smoke. The paper trains on ImageNet,
captioned "a photo of a CLASS", and 1.3M pairs of CC12M. It tuned LLaMA3-8B and Qwen1.5-7B on
pictures and text itself, and published neither: LLaVA-NeXT's language model stands in for the
first, and the chat model for the second, which has no public tuned version.

T5-v1.1-XXL is published as pickled weights, which are not read. Load it once with transformers'
T5EncoderModel, where you trust it, call save_pretrained on it and its tokenizer, and pass the
folder as --config.text.encoders.t5_xxl.model.
"""

from ml_collections import ConfigDict

from configs import ablations, base, lidit_1b

_NAMES = {"llama3": "llama3_base", "qwen": "qwen_base", "t5": "t5_xxl"}
_TUNED = {"llama3": "llama3_tuned", "qwen": "qwen"}


def get_config(arg: str = "") -> ConfigDict:
    runs = ablations.RUNS | ablations.EXTRA
    name, _, more = arg.partition(",")
    if name not in runs:
        name, more = "full", arg
    switches = runs[name]
    c = lidit_1b.get_config()
    c.text.encoders.llama3_base = base.encoder("meta-llama/Meta-Llama-3-8B", "base", 4096)
    c.text.encoders.llama3_tuned = base.encoder("llava-hf/llama3-llava-next-8b-hf", width=4096)
    c.text.encoders.qwen_base = base.encoder("Qwen/Qwen1.5-7B", "base", 4096)
    c.text.encoders.t5_xxl = base.encoder("google/t5-v1_1-xxl", "encoder", 4096)
    c.update(ablations.delta(switches, _TUNED if switches.tuned else _NAMES))
    c.data.bins = "square"
    c.train.steps = 300_000
    c.train.batch_size = 256
    if base.take_argument(c, more, *runs):
        lidit_1b.smoke(c)
    return c
