"""What users give, and how it is made wrong at random. Each file makes `Given`s of one kind.

given      what is given, and what becomes of it      world      the sound things that are made wrong
configs    keys of a config, set to anything          texts      files of prompts
pictures   pictures and captions of a source          folders    data sets and runs, damaged
commands   the doors, started as users start them
"""
