"""`python -m pipeline` and the command `veobatch`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command. Ctrl-C while it is still being imported ends it as it would later on."""
    try:
        from pipeline.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
