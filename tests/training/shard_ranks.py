"""What test_sharded.py starts, on two processes under torchrun: the command line; the ids that each process reads
are left in FILE.<rank>."""

import json
import os
import sys
from pathlib import Path

from hf_lowlabel import cli
from hf_lowlabel.data.sources.streaming import ShardedStream

ids, rows = [], ShardedStream.rows


def noted(self):
    for row in rows(self):
        ids.append(row[0])
        yield row


if __name__ == "__main__":
    ShardedStream.rows = noted
    code = cli.main(sys.argv[2:])
    Path(f"{sys.argv[1]}.{os.environ.get('RANK', 0)}").write_text(json.dumps(ids))
    sys.exit(code)
