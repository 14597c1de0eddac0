"""How fast it is here: each file measures one thing, and says what it measured.

sampling  pictures drawn
"""
