"""The networks, in flax nnx. Every parameter has named logical axes; no mesh appears here.

layers        linear maps, norms, FFN, modulation
mixing        softmax(q k^T) v, by platform
stacking      equal blocks as one module run by a loop, and rematerialisation
attention     self- and cross-attention with QK-RMSNorm
conditioners  LLM features -> text tokens: `direct`, `infused`
lidit         the DiT, and conditioner + DiT as one module
vae           pictures <-> latents
"""
