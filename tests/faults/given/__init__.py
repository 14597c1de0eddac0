"""Random wrong user input. Each file makes `Given`s of one kind.

given      an input, and its outcome                  world      the intact things to make wrong
configs    keys of a config, set to anything          texts      files of prompts
pictures   images and captions of a source            folders    damaged data sets and runs
commands   the commands, started as users start them
"""
