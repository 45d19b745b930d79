"""Which loss? `python tools/compare.py 'losses=[focal,ssd]' seeds=5`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.compare import main

if __name__ == "__main__":
    main()
