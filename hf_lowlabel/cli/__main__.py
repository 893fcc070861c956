"""python -m hf_lowlabel.cli VERB, as `python -m hf_lowlabel VERB`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
