"""The commands, one file each, whose function has the file's name.

The module imports nothing heavy: the function imports what it needs. So `ianet --help` is quick.
"""
