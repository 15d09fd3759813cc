"""Streams of random numbers: a stream starts with the seed and one of these numbers.

So no two streams are the same, and an image does not depend on the images drawn before it.
"""

PEOPLE, TRACKS, IMAGES, SCENES, PORTRAITS = range(5)
