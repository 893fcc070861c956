"""python -m hf_lowlabel VERB: the command line without its script, for torchrun and accelerate launch."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
