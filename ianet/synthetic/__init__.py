"""Synthetic pedestrians, drawn and stored in the layout of Market-1501.

- `archive`: who is seen where, and the zip.
- `portrait`: a person, drawn as described.
- `people`: identities and families of identities.
- `body`, `figure`: poses, and the drawing of a body.
- `cameras`, `scene`: how a camera sees, and what stands before it.
- `palette`, `streams`: colours and textures, and the streams of random numbers.
"""
