"""Real training processes, started as users start them, killed and damaged at random moments.

worlds   three tiny prepared runs            kills   runs killed repeatedly equal undisturbed ones
victim   a process, watched from outside     disk    a small disk that fills, in a mount namespace
damage   files of a run flipped, cut, zeroed, removed
fuzz     random user input: accepted, or refused in one clear line (given)
"""
