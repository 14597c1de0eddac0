"""Two runs of a tiny world on a tiny real LLM."""

from ml_collections import ConfigDict

from lidit_jax import ablation
from lidit_jax.scenes import held_out
from tests import tiny


def config_dict(llm, prompts=held_out.BLOCK_SIZE) -> ConfigDict:
    base = tiny.config_dict([llm], steps=4, save_every=2, log_every=1, preview_every=0)
    base.data.source, base.data.size = "scenes", (32, 32)
    base.data.options = ConfigDict({"count": 48})
    base.model.patch = 8
    base.sample.sampler.steps = 2
    c = ConfigDict({"base": base, "paper": {"ltr": (54.02, 77.08)}, "prompts": prompts})
    infused = {"name": "infused", "n_ltr": 1}
    c.runs = ConfigDict({"base": {"model": {"conditioner": {"name": "direct"}}}})
    c.runs.ltr = ConfigDict({"model": {"conditioner": infused}})
    c.claims = ConfigDict({"refiner": "ltr > base"})
    c.metrics, c.unsteady = ("t2i_avg", "binding"), ()
    return c


def family(llm, prompts=held_out.BLOCK_SIZE) -> ablation.Family:
    return ablation.parse(config_dict(llm, prompts))
