"""Training: the only package that uses optax and Orbax, and the last that sees ConfigDicts.

config       ConfigDict -> frozen dataclasses          opening      checks a run and makes its state
tasks        what is trained: diffusion, the VAE       loop         steps, logs, saves, previews
inputs       checks and opens a data set               step         one jitted, sharded update
optim        the optimizer                             guard        which steps are skipped
state        parameters, EMA, optimizer state          feed         moves batches to the devices
checkpoints  Orbax                                     programs     the step, compiled by size
agreement    what processes must have in common        tracing      a profile of a few steps
handover     from one training stage to the next       origin       the checkpoint a run began from
trained      opens a finished run for use              drawing      noise to latents, as one program
replay       one step again, sample by sample          preview      images during training
logbook      what a run reports, and when              telemetry    the files it reports to
held_out     the loss on held-out images               heap         CPU memory kept between steps
"""
