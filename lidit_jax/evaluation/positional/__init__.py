"""Does a model draw early parts of a prompt better than late ones? (section 2.2, Fig. 3, A.3)

prompts  lists of four segments, each at each place once
bias     the estimator
plot     Fig. 3's bars
"""
