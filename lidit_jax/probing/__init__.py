"""What do the tokens of one part of a prompt encode about another part? Needs no sampled images.

In a causal LLM, the tokens at a prompt's beginning cannot encode its end. A linear probe reads an
attribute that is mentioned at one place from the tokens at another: from the LLM's features, and
from the output of a trained run's refiners (the paper's section 2.2; its Fig. 3 shows the same with
pictures).

prompts  lists of four things, and where in the text each is    linear  the probe
states   an LLM's and a run's tokens, averaged over each thing  report  a table and a figure
"""
