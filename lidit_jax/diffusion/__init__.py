"""Diffusion as maths on arrays: no network, no parameters, no mesh.

  schedules    signal and noise levels at time t: (alpha, sigma)
  objectives   what the network predicts (x0, eps, v, flow), at which t, and its loss
  guidance     combines two denoised images, one with and one without the prompt
  samplers     from noise to a clean image by repeated denoising

Training is four calls: `sample_time`, `corrupt`, the network, `loss`. Sampling is one,
`samplers.sample`, which knows the network only as `denoise(x_t, t) -> x0`.
"""
