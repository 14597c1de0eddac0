"""The training room: the only one that knows optax and Orbax, and where ConfigDicts end.

config       ConfigDict -> frozen dataclasses         opening      a run set up: checked, given a state
tasks        what is trained: diffusion, the VAE       loop         steps, logs, checkpoints, previews
inputs       a data set, checked and opened            step         one jitted, sharded update
optim        the optimizer                             guard        which steps are skipped
state        parameters, EMA, optimizer state          feed         batches given to the devices
checkpoints  Orbax                                     programs     the step, compiled for each size
agreement    what several processes must share         tracing      a profile of a few steps
handover     from one stage to the next                origin       which checkpoint it began from
trained      a finished run, opened to be used         drawing      noise to latents, as one program
replay       one step again, sample by sample          preview      pictures while it learns
logbook      what a run tells of itself, and when      telemetry    by which means
held_out     the loss on what is not learned from       heap         a CPU's memory, kept between steps
"""
