"""Makes figures of docs/guarantees.md: `make guarantees`, about 20 minutes on two processors.

`python -m tests.guarantees NAME ...` makes some of them and leaves the other rows as they are.
"""

import sys

from tests.guarantees.cases import CASES
from tests.guarantees.page import make

if __name__ == "__main__":
    make(CASES, "tests.guarantees", sys.argv[1:])
