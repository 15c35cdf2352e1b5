"""`python -m tinyddpm` is the command `tinyddpm`."""

import sys

from tinyddpm.program.cli import main

__all__ = []

sys.exit(main())
