"""Diffusion as maths on arrays: no network, no parameters, no mesh.

  schedules    how much signal and noise there is at a time t: (alpha, sigma)
  objectives   what the network is asked for (x0, eps, v, flow), when, and how its error is scored
  guidance     two denoised images, one with and one without the prompt, become one
  samplers     from noise to a clean image by repeated denoising

Training is four calls: `sample_time`, `corrupt`, the network, `loss`. Sampling is one,
`samplers.sample`, which knows the network only as `denoise(x_t, t) -> x0`.
"""
