"""`python -m ebpfjit`: the command line."""

import sys

from ebpfjit.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
