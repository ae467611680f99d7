"""``python -m kinfolk`` is the command ``kinfolk``."""

from kinfolk.cli import main

if __name__ == "__main__":
    main()
