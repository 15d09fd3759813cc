"""How large a synthetic set may be, without NumPy."""

from __future__ import annotations

IDENTITIES = 9999  # of both splits together: a file name has four digits for them

LIMITS = {
    "train_identities": (1, IDENTITIES),
    "test_identities": (1, IDENTITIES),
    "distractors": (0, 99_999),
    "junk": (0, 99_999),
    "images_per_camera": (2, 100),
    "height": (32, 2048),
    "width": (16, 2048),
    "seed": (0, 2**63 - 1),
    "processes": (1, 1024),
}
"""The least and the most of each argument of `ianet.synthetic.archive.write`."""


def check_sizes(sizes: dict[str, int]) -> None:
    """Raise ValueError if one of these arguments of `ianet.synthetic.archive.write` is wrong.

    Args:
        sizes: by the names of `LIMITS`, with the numbers of identities among them.
    """
    for name, value in sizes.items():
        least, most = LIMITS[name]
        if value < least:
            raise ValueError(f"{name} is {value}: it must be {least} or more")
        if value > most:
            raise ValueError(f"{name} is {value}: it must be {most} or fewer")
    train, test = sizes["train_identities"], sizes["test_identities"]
    if train + test > IDENTITIES:
        raise ValueError(
            f"train_identities is {train} and test_identities {test}: together they must be "
            f"{IDENTITIES} or fewer, as a file name has four digits for them"
        )
