"""A procedural world of up to four things with colours, textures, sizes and places, to compare models in.

Grown from `shapes_world`, to tell apart what that world is too easy for: several things whose
attributes must be bound to them, said before or after their noun, in short prompts and long ones.

things      what a scene is, and how one is drawn at random     held_out   what training never sees
phrasing    a scene in words, English and Chinese               rendering  a scene as a picture
"""
