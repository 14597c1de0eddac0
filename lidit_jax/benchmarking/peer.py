"""The peer: diffusers' PixArt transformer at the size of a model here, trained as its users would.

Forward, backward and fused AdamW: f32 on a CPU; bf16 autocast with torch.compile on a GPU. It has
no EMA, no refiners, no position block and one modulation for all blocks, so its step is less work.
"""

import dataclasses
from collections.abc import Callable

from lidit_jax import errors
from lidit_jax.training.tasks.diffusion import DiffusionTask

DTYPES = {"cpu": "float32", "cuda": "bfloat16"}  # torch's device -> what the peer computes in


@dataclasses.dataclass(frozen=True)
class Peer:
    """A peer ready to train. step: one update on one batch; flops: of a step, counted by torch."""

    name: str
    parameters: int
    flops: int
    step: Callable[[], float]


def pixart(task: DiffusionTask) -> Peer:
    """Returns PixArt with the depth, width, heads, tokens and batch of a task with one LLM.

    It runs on a GPU if torch has one, else on the CPU. Raises InputError if diffusers is not
    installed, if there are several LLMs, which it does not support, or if the task computes in
    another dtype.
    """
    try:
        import torch
        from diffusers import PixArtTransformer2DModel
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError as e:
        raise errors.InputError(
            f"--peer=diffusers needs torch and diffusers ({e}); in the folder of lidit_jax, run "
            "`pip install -e '.[text,dev]'`"
        ) from e
    config, (B, (H, W, C), text) = task.model, dataclasses.astuple(task.shape)
    if len(text) != 1:
        raise errors.InputError(
            f"the peer supports one LLM, but the config has {len(text)}; name one in text.use"
        )
    ((S, E),) = text
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config.dtype != DTYPES[device]:
        raise errors.InputError(
            f"the peer computes in {DTYPES[device]} on torch's device {device}, "
            f"the config in {config.dtype}; use --config.model.dtype={DTYPES[device]}"
        )
    torch.manual_seed(0)
    model = PixArtTransformer2DModel(
        num_layers=config.depth, num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads, cross_attention_dim=config.width,
        in_channels=C, out_channels=C, sample_size=H, patch_size=config.patch,
        caption_channels=E, use_additional_conditions=False,
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    noisy, noise = torch.randn(2, B, C, H, W, device=device)
    inputs = {
        "hidden_states": noisy,
        "encoder_hidden_states": torch.randn(B, S, E, device=device),
        "encoder_attention_mask": torch.ones(B, S, device=device),
        "timestep": torch.randint(0, 1000, (B,), device=device),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }

    def loss(network):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            predicted = network(**inputs).sample
        return (predicted.float() - noise).square().mean()

    # The counter misses the fused attention of CPUs, but counts the same attention as products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss(model).backward()
    network = torch.compile(model) if device == "cuda" else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        scored = loss(network)
        scored.backward()
        optimizer.step()
        return scored.item()  # waits for the device

    count = sum(p.numel() for p in model.parameters())
    return Peer(f"diffusers PixArt, torch on {device}", count, counter.get_total_flops(), step)
