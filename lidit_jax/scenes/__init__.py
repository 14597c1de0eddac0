"""A procedural world of up to four things with colours, textures, sizes and places.

It compares models that `shapes_world` is too easy to tell apart: several things whose attributes
must be bound to them, mentioned before or after their noun, in short prompts and long ones.

things      what a scene is, and how to draw a random one       held_out   what training never sees
phrasing    a scene in words, English and Chinese               rendering  a scene as a picture
"""
