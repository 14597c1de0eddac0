"""Real training processes, started as users start them, killed and damaged at random moments.

worlds   three tiny runs, prepared           kills   killed again and again, the run is that of no kill
victim   a process, watched from outside     disk    a disk that fills, seen from inside a namespace
damage   files of a run flipped, cut, zeroed, removed
fuzz     what users give, anything at all: accepted, or refused in one clear line (given)
"""
