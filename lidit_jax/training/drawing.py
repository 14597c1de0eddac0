"""Noise to latents with a trained network: sampler and guidance in one program on a mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import rng, sharding
from lidit_jax.batch import TextFeatures
from lidit_jax.diffusion import guidance, objectives, samplers, schedules
from lidit_jax.models.conditioners import TextCondition
from lidit_jax.models.lidit import LiDiT
from lidit_jax.training.config import SampleConfig


def make_draw(
    graphdef: nnx.GraphDef, objective: objectives.ObjectiveConfig, mesh: Mesh
) -> Callable[..., jax.Array]:
    """Returns the jitted
    `f(ema, constants, text, seeds_B, negative, sample=..., shape=...) -> raw latents`.

    Row k is sampled from seed k. Text, seeds (uint32) and the returned latents are sharded over the
    mesh by rows, `negative` (see `conditions`) is replicated; a program is compiled for each
    `sample` and `shape`.
    """

    def traced(ema, constants, text, seeds_B, negative=None, *, sample, shape):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `sharding.split_batch`
            model = nnx.merge(graphdef, ema, constants)
            keys_B = jax.vmap(lambda seed: rng.key(seed, "sample"))(seeds_B)
            return draw(model, objective, sample, text, keys_B, shape, negative)

    rows = sharding.batch_sharding(mesh)
    return jax.jit(traced, static_argnames=("sample", "shape"), out_shardings=rows)


def draw(
    model: LiDiT,
    objective: objectives.ObjectiveConfig,
    config: SampleConfig,
    text: tuple[TextFeatures, ...],
    keys_B: jax.Array,
    shape: tuple[int, int, int],
    negative: tuple[TextFeatures, ...] | None = None,
) -> jax.Array:
    """Samples raw latents [B, *shape] for the prompts, row k from keys_B[k] alone.

    The caller computes the LLMs' features, once. negative: see `conditions`.
    """
    B = keys_B.shape[0]
    condition_at = conditions(model, text, config.is_guided, negative)

    def denoise(x_t, t_B, condition):
        return objectives.to_x0(objective, model.dit(x_t, model.time(t_B), condition), x_t, t_B)

    def prompted(x_t, t_B):
        return denoise(x_t, t_B, condition_at(t_B))

    def guided(x_t, t_B):
        x0 = denoise(_pairs(x_t, x_t), _pairs(t_B, t_B), condition_at(t_B))
        x0_Bx2xHxWxC = x0.reshape(B, 2, *shape)
        return guidance.combine(x0_Bx2xHxWxC[:, 0], x0_Bx2xHxWxC[:, 1], config.guidance)

    schedule = schedules.make_schedule(objective.schedule)
    chosen = guided if config.is_guided else prompted
    return model.to_raw(samplers.sample(config.sampler, schedule, chosen, keys_B, shape))


def conditions(
    model: LiDiT,
    text: tuple[TextFeatures, ...],
    guided: bool,
    negative: tuple[TextFeatures, ...] | None = None,
) -> Callable[[jax.Array], TextCondition]:
    """Returns a function from t_B, the same time in every row, to the DiT's text condition.

    With guidance the condition has 2 B rows: the prompt and the empty prompt of a sample are
    adjacent, on one device. The empty prompt is the same for all, so its single row is refined
    once per batch. A conditioner that does not use time runs now; refiners, which do, run at every
    call.
    negative: one row of features of a prompt that replaces the empty one.
    """
    B = text[0].mask_BxS.shape[0]

    def prompts(t_B):
        return model.condition(text, jnp.zeros(B, bool), model.time(t_B))

    def unwanted(e_t_1xD):
        if negative is None:
            return model.empty_condition(e_t_1xD)
        return model.condition(negative, jnp.zeros(1, bool), e_t_1xD)

    def prompts_and_unwanted(t_B):
        return _with_unwanted(prompts(t_B), unwanted(model.time(t_B[:1])))

    condition_at = prompts_and_unwanted if guided else prompts
    if model.conditioner.uses_time:
        return condition_at
    condition = condition_at(jnp.zeros(B))
    return lambda t_B: condition


def _with_unwanted(prompts: TextCondition, unwanted: TextCondition) -> TextCondition:
    """Returns 2 B rows: each prompt's condition, then the unwanted prompt's, given once."""
    length = max(prompts.mask_BxS.shape[1], unwanted.mask_BxS.shape[1])

    def pair(prompt, unwanted):
        return _pairs(prompt, jnp.broadcast_to(unwanted, prompt.shape))

    def longer(a):
        return jnp.pad(a, [(0, 0), (0, length - a.shape[1])] + [(0, 0)] * (a.ndim - 2))

    return TextCondition(
        pair(longer(prompts.tokens_BxSxD), longer(unwanted.tokens_BxSxD)),
        pair(longer(prompts.mask_BxS), longer(unwanted.mask_BxS)),
        pair(prompts.pooled_BxD, unwanted.pooled_BxD),
    )


def _pairs(a, b):
    """Interleaves the rows of a and b."""
    return jnp.stack([a, b], 1).reshape(2 * len(a), *a.shape[1:])
