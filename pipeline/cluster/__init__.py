"""Ray, and the files that its nodes share.

`address` says which Ray is used, `session` starts or joins Ray, `resources` shares out CPU cores
and GPUs, `remote` calls functions on nodes, `storage` reads and writes shared files, and `lease`
keeps two commands from the same work.
"""
