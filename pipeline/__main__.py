"""`python -m pipeline` and the command `veobatch`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
