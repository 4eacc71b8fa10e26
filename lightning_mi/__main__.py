"""`python -m lightning_mi` and `torchrun -m lightning_mi`: entry points equal to `lightning-mi`."""

import sys

from lightning_mi.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
