"""The command `ianet`. A file in `commands` is a command."""
