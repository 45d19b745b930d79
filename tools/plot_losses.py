"""Draws losses: `python tools/plot_losses.py 'losses=[focal,cross_entropy,ssd]'`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.plot_losses import main

if __name__ == "__main__":
    main()
