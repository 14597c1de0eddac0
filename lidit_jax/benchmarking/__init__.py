"""What a run will need and how fast it may go, before and while it runs. Map of the room:

chips    memory, peak and links of the accelerators, as their vendors publish them
assumed  a config as if its encoders had been measured: no data set is wanted
flops    a model's FLOPs by formula, einsum by einsum
hlo      the collectives of a compiled program
devices  virtual ones, or TPUs and GPUs that are not here
program  the real train step compiled for them: its memory
least_time of a step: its products, and its traffic beside them
plan     all of this, and the settings that fit each chip
report   a plan in print and as JSON
timing   things that are compared, timed in turn
training the train step beside matrix products and a peer
peer     PixArt of diffusers at the size of a model here
sampling how long a picture takes to be drawn, and what of it is not the denoiser's
made_up  a data set of noise, written by what writes real ones
reading  how fast such a set is read, and what limits it
steps    what each step of that costs
storage  its files as a disk has them
"""
