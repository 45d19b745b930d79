"""`python -m detector.cli train loss=focal` is `detector train loss=focal`."""

from detector.cli.main import main

if __name__ == "__main__":
    main()
