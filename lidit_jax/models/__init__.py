"""The networks, in flax nnx. They name logical axes on every parameter and know no mesh.

layers        attention with QK-RMSNorm, FFN, modulation, stacking and scanning blocks
conditioners  LLM features -> text tokens: `direct`, `infused`
lidit         the DiT, and conditioner + DiT as one module
vae           pictures <-> latents
"""
