"""`python -m tinyddpm` is the command `tinyddpm`."""

import sys

from .cli import main

__all__ = []

sys.exit(main())
