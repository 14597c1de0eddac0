"""lidit_jax: text-to-image diffusion transformers whose prompts are read by large language models.

Letters on tensor names, everywhere in the project:
  B batch            H W latent grid        C latent channels
  T image tokens     S text tokens          P instruction (prefix) tokens
  D width            E width of an LLM      N heads      K head dim      F hidden width of an FFN
Conventions:
  masks are bool, True = real token; images and latents are NHWC;
  time t = 0 is data, t = 1 is noise; guidance 1 = off.
Layers, from the bottom; imports only go down:
  0  errors  files  rng  digests  moments         what every layer may use
     batch  sharding  processes  prompts
     pretrained  share  tables  shapes_world  scenes
  1  diffusion  models  evaluation                maths; networks; images on disk -> scores
  2  text  data                                   prompts -> features; sources -> records -> batches
  3  training                                     config, step, loop, checkpoints
  4  preparation  generation  autoencoding        sources -> records; prompts -> images; VAE use
  5  benchmarking  ablation  probing              cost of a run; comparing runs; what tokens encode
  6  doors  prepare  train  sample  evaluate      flags -> one library call
     ablate  probe  continuations  export
     reconstruct  benchmark
"""
