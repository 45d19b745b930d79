"""Makes figures of docs/guarantees.md from outside of the process: `python -m tests.outsider`.

`python -m tests.outsider NAME ...` makes some of them. Linux; those that mount need root.
"""

import sys

from tests.guarantees.page import make
from tests.outsider.cases import CASES

if __name__ == "__main__":
    make(CASES, "tests.outsider", sys.argv[1:])
