"""What a run needs and how fast it can be, estimated or measured. Map of the package:

chips    memory, peak and links of the accelerators, as published by their vendors
assumed  a config with assumed encoder measurements, so that no data set is needed
flops    a model's FLOPs by formula, einsum by einsum
hlo      the collectives of a compiled program
devices  virtual devices, or TPUs and GPUs that are not present
program  the real train step, or any program, compiled for them: its memory
least_time  lower bound of a step's time: its matrix products, and its traffic in parallel
plan     all of this, and the settings that fit each chip
report   a plan as text and as JSON
timing   times of things to compare, measured in turn
training the train step compared with matrix products and a peer
peer     diffusers' PixArt at the size of a model here
sampling how long sampling a picture takes, and the share outside the denoiser
sampling_memory  the memory that sampling takes on TPUs or GPUs that are not present
made_up  a data set of noise, written by the code that writes real ones
reading  how fast such a data set is read, and what limits it
steps    the cost of each step of reading
storage  its files: reading them plainly, and evicting them from the page cache
"""
