"""Texts without secrets, for messages, logs, pages and records.

Secrets are those of addresses, and the values of variables of the environment whose names say so.
"""

from __future__ import annotations

import os
import re

# A password may hold "/", "?" and "@". PostgreSQL's driver takes what follows its first "@" for a
# host, and names that without "://".
USER = re.compile(r"""(://|\bhost name ["'])\S*@""")
VALUE = re.compile(
    r"([?&;][\w.%-]*(?:password|passwd|pwd|passphrase|secret|token|key|credential|signature)"
    r"[\w.%-]*=)[^\s&]+",
    re.IGNORECASE,
)
VARIABLE = re.compile(r"(SECRET|TOKEN|PASSWORD|KEY)(?!.*(FILE|PATH|DIR)$)", re.IGNORECASE)
SHORTEST = 8  # characters of such a variable; texts hold shorter words by chance
HIDDEN = "***"


def hide_secrets(text: str) -> str:
    """The text without users, passwords, keys and tokens in its addresses, and without the values
    of variables that name a secret, and no place of files.
    """
    values = {value for name, value in os.environ.items() if VARIABLE.search(name)}
    for value in sorted(values, key=len, reverse=True):  # a value may hold another
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return VALUE.sub(rf"\1{HIDDEN}", USER.sub(r"\1", text))
