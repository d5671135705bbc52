"""The reader of faces: how its pictures are made, how it is trained, and how well it reads."""
