"""A model's FLOPs by formula: every matrix product of its forward pass, per picture.

A multiply-add counts as two. Elementwise work is not counted: norms, softmax, GELU.
"""

import dataclasses
from collections.abc import Iterator

from lidit_jax import errors
from lidit_jax.models.conditioners import ConditionerConfig, infused
from lidit_jax.models.lidit import ModelConfig
from lidit_jax.training.tasks.diffusion import DiffusionTask

BACKWARD = 2  # the backward pass is two products of the same size: for inputs and for weights


@dataclasses.dataclass(frozen=True)
class Product:
    """One product of the forward pass.

    where: "block.ffn.up"; letters: as in an einsum; flops: per picture.
    """

    where: str
    letters: str
    flops: int


def forward(task: DiffusionTask) -> list[Product]:
    """Returns the products of one picture's forward pass; those of equal blocks are summed.

    Raises InputError for a conditioner whose products are not known here.
    """
    config, (H, W, C) = task.model, task.shape.latent
    prompts = [S for S, _ in task.shape.text]
    prefixes = [source.prefix_len for source in task.sources]
    widths = [source.width for source in task.sources]
    name = config.conditioner.name
    if name not in CONDITIONERS:
        raise errors.InputError(
            f"the products of conditioner {name!r} are not counted; add a function of them to "
            f"CONDITIONERS in benchmarking/flops.py"
        )
    return [
        *_dit(config, H // config.patch, W // config.patch, C, sum(prompts)),
        *CONDITIONERS[name](config.conditioner, config.width, prompts, prefixes, widths),
    ]


def total(products: list[Product]) -> int:
    """Returns the FLOPs of one picture's forward pass."""
    return sum(p.flops for p in products)


def training(products: list[Product]) -> int:
    """Returns the FLOPs of training on one picture: forward and backward, without recomputation.

    A few first layers need no gradient for their inputs; it is counted (under 1% of a model).
    """
    return (1 + BACKWARD) * total(products)


def recomputed(products: list[Product], remat: str) -> int:
    """Returns the FLOPs that the backward pass recomputes per picture, under a remat policy.

    "none" recomputes the logits of every attention, whose gradient recomputes its weights
    (`models.mixing`); XLA may still reuse those of the forward pass if no loop is in between, as in
    a single block. "full" also recomputes all of a scanned block. With a kernel, which XLA cannot
    merge with that, the logits are computed once more than is counted (2% of a step at 4,096
    tokens).
    """

    def repeated(product: Product) -> bool:
        scanned = product.where.startswith(("block.", "ltr."))
        return product.where.endswith(".logits") or (remat == "full" and scanned)

    return total([p for p in products if repeated(p)])


def _dit(config: ModelConfig, h: int, w: int, C: int, S: int) -> Iterator[Product]:
    """Yields the products of the DiT on h x w image tokens and S text tokens."""
    T, D, n, patch = h * w, config.width, config.depth, config.patch**2 * C
    taps = (3 * h - 2) * (3 * w - 2)  # of a 3 x 3 convolution over h x w, those in padding left out
    yield Product("dit.patchify", "tp,pd->td", 2 * T * patch * D)
    yield Product("dit.position", "2 x (tkd,kdd->td)", 2 * 2 * taps * D * D)
    yield Product("dit.time", "p,pd->d; d,dd->d", 2 * 256 * D + 2 * D * D)
    yield Product("dit.pooled", "d,dd->d", 2 * D * D)
    yield from _attention("block.self", T, T, D, n)
    yield from _attention("block.cross", T, S, D, n)
    yield from _ffn("block", T, D, n)
    yield Product("block.modulation", "d,dm->m", n * 2 * D * 9 * D)
    yield Product("dit.final_modulation", "d,dm->m", 2 * D * 2 * D)
    yield Product("dit.final", "td,dp->tp", 2 * T * D * patch)


def _direct(
    config: ConditionerConfig, D: int, prompts: list[int], prefixes: list[int], widths: list[int]
) -> Iterator[Product]:
    for S, E in zip(prompts, widths):
        yield Product("entry", "se,ed->sd", 2 * S * E * D)


def _infused(
    config: ConditionerConfig, D: int, prompts: list[int], prefixes: list[int], widths: list[int]
) -> Iterator[Product]:
    lengths = [P + S for P, S in zip(prefixes, prompts)]
    n_cr = infused.collaborative_blocks(config, len(prompts))
    for L, S, E in zip(lengths, prompts, widths):
        yield Product("entry", "se,ed->sd", 2 * L * E * D)
        if infused.is_controlled(config, len(prompts)):
            yield Product("pool", "d,dd->d", 2 * D * D)
        if config.n_ltr:
            whole = config.n_ltr if n_cr else config.n_ltr - 1
            yield from _refiner(config, L, L, D, whole)
            yield from _refiner(config, S, L, D, config.n_ltr - whole)
    for k in range(n_cr):
        last = k == n_cr - 1
        for L, S in zip(lengths, prompts):
            yield from _attention("cr", S if last else L, sum(lengths) - L, D, 1)
            yield from _ffn("cr", S if last else L, D, 1)
            yield Product("cr.modulation", "d,dm->m", 2 * D * 6 * D)


def _refiner(config: ConditionerConfig, T: int, S: int, D: int, n: int) -> Iterator[Product]:
    """Yields the products of n linguistic token refiner blocks that refine T of S tokens."""
    yield from _attention("ltr", T, S, D, n)
    yield from _ffn("ltr", T, D, n)
    if config.gating:
        yield Product("ltr.gates", "d,dm->m", n * 2 * D * 2 * D)


def _attention(where: str, T: int, S: int, D: int, n: int) -> Iterator[Product]:
    """Yields the products of n attentions from T tokens to S tokens."""
    yield Product(f"{where}.q", "td,dnk->tnk", n * 2 * T * D * D)
    yield Product(f"{where}.kv", "sd,dcnk->scnk", n * 2 * S * D * 2 * D)
    yield Product(f"{where}.logits", "tnk,snk->nts", n * 2 * T * S * D)
    yield Product(f"{where}.mix", "nts,snk->tnk", n * 2 * T * S * D)
    yield Product(f"{where}.out", "tnk,nkd->td", n * 2 * T * D * D)


def _ffn(where: str, T: int, D: int, n: int) -> Iterator[Product]:
    yield Product(f"{where}.ffn.up", "td,df->tf", n * 2 * T * D * 4 * D)
    yield Product(f"{where}.ffn.down", "tf,fd->td", n * 2 * T * 4 * D * D)


# The conditioner's name -> the products of (its config, the width D of the DiT, and the numbers of
# prompt tokens, the numbers of instruction tokens and the widths of each LLM).
CONDITIONERS = {"direct": _direct, "infused": _infused}
