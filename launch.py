"""The command line of a checkout: `python launch.py [key=value …]` plans runs and runs them; `--help` says more."""

import sys

from o2o.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
