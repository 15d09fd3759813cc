"""Texts without the secrets of addresses, for messages, logs, pages and records."""

from __future__ import annotations

import re

# A password may hold "/", "?" and "@". PostgreSQL's driver takes what follows its first "@" for a
# host, and names that without "://".
USER = re.compile(r"""(://|\bhost name ["'])\S*@""")
VALUE = re.compile(
    r"([?&;][\w.%-]*(?:password|passwd|pwd|passphrase|secret|token|key|credential|signature)"
    r"[\w.%-]*=)[^\s&]+",
    re.IGNORECASE,
)
HIDDEN = "***"


def hide_secrets(text: str) -> str:
    """The text without users, passwords, keys and tokens in its addresses."""
    return VALUE.sub(rf"\1{HIDDEN}", USER.sub(r"\1", text))
