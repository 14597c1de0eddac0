"""The networks, in flax nnx. They name logical axes on every parameter and know no mesh.

layers        linear maps, norms, FFN, modulation
mixing        softmax(q k^T) v, by platform
stacking      equal blocks as one module, run by a loop, and what its gradient computes again
attention     self- and cross-attention with QK-RMSNorm
conditioners  LLM features -> text tokens: `direct`, `infused`
lidit         the DiT, and conditioner + DiT as one module
vae           pictures <-> latents
"""
