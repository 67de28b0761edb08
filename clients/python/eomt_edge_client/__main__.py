"""``python -m eomt_edge_client``: prints what a daemon publishes."""

import sys

from ._client import main

if __name__ == "__main__":
    sys.exit(main())
