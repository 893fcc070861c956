"""python -m hf_lowlabel.cli VERB: the command line without its script, for torchrun and accelerate launch."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
