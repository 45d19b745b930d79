"""Trains many times, and prints one table. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.launch import main

if __name__ == "__main__":
    main()
