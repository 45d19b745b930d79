"""Makes figures of docs/guarantees.md from outside of the process: `python -m tests.outsider`.

`python -m tests.outsider NAME ...` makes some of them. Linux; those that mount need root.
"""

import signal
import sys

from tests.guarantees.page import Case, make
from tests.outsider import listed, random_faults
from tests.outsider.cases import CASES

ROWS: dict[str, Case] = {
    **CASES,
    "random": Case(
        "random faults, kind x place x moment, drawn from a seed, in 10 commands",
        random_faults.figure,
    ),
    **listed.rows(),
}

if __name__ == "__main__":
    # A shell ignores Ctrl-C for what it runs in the background, and what is ignored is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    make(ROWS, "tests.outsider", sys.argv[1:])
