"""The training room: the only one that knows optax and Orbax, and where ConfigDicts end.

config       ConfigDict -> frozen dataclasses         state        parameters, EMA, optimizer state
tasks        what is trained: diffusion                step         one jitted, sharded update
optim        the optimizer                             loop         the run, from start or resumed
inputs       a data set, checked and opened            drawing      noise to latents, as one program
trained      a finished run, opened to be used
checkpoints  Orbax                                     metrics      console, TensorBoard, JSON lines
agreement    what several processes must share         tracing      a profile of a few steps
handover     from one stage to the next                trained      a finished run, opened
"""
