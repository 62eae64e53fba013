"""Start-up, nothing else."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the server, or the command that was asked for."""
    # Importing the SDK makes a hundred thousand objects that live as long as the process: not worth collecting.
    gc.disable()
    from kling_mcp.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
