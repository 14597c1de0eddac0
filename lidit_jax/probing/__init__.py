"""What do the tokens of one part of a prompt know of another part? Asked without drawing a picture.

In a causal LLM, the tokens of a prompt's beginning cannot know its end. A linear probe reads an attribute
that is said at one place from the tokens at another: from the LLM's features, and from what a trained
run's refiners make of them (the paper's section 2.2; its Fig. 3 shows the same by pictures).

prompts  lists of four things, and where in the text each is    linear  the probe
states   an LLM's and a run's tokens, averaged over each thing  report  a table and a figure
"""
