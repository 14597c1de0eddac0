"""The training room: the only one that knows optax and Orbax, and where ConfigDicts end.

config       ConfigDict -> frozen dataclasses         opening      a run set up: checked, given a state
tasks        what is trained: diffusion, the VAE       loop         steps, logs, checkpoints, previews
inputs       a data set, checked and opened            step         one jitted, sharded update
optim        the optimizer                             feed         batches given to the devices
state        parameters, EMA, optimizer state          drawing      noise to latents, as one program
checkpoints  Orbax                                     metrics      console, TensorBoard, JSON lines
agreement    what several processes must share         tracing      a profile of a few steps
bad_records  samples that were replaced, counted       ledger       what went otherwise than planned
handover     from one stage to the next                trained      a finished run, opened to be used
origin       which checkpoint it began from
"""
