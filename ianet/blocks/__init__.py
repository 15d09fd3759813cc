"""Blocks that a network inserts after a stage; each file names its own `Block`."""
