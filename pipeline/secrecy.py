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
VARIABLE = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|KEY(?![A-Z]))(?!.*(FILE|PATH|DIR|URL)$)",
    re.IGNORECASE,
)
SHORTEST = 8  # characters of such a variable; texts hold shorter words by chance
HIDDEN = "***"


def hide_secrets(text: str) -> str:
    """The text without users, passwords, keys and tokens in its addresses, and without the values
    of variables that name a secret, and no place of files.
    """
    # Addresses first: a value may be a word by which an address names its secret.
    text = VALUE.sub(rf"\1{HIDDEN}", USER.sub(r"\1", text))
    values = {value.strip() for name, value in os.environ.items() if VARIABLE.search(name)}
    for value in sorted(values, key=len, reverse=True):  # a value may hold another
        # Path.exists() raises an error for a value that is longer than a path may be.
        if len(value) >= SHORTEST and not os.path.exists(value):  # noqa: PTH110
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
    return text
