"""`python -m colla`: the command line."""

from colla.cli import main

if __name__ == "__main__":
    main()
