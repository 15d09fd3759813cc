"""`python -m ianet`, which is the command `ianet`."""

from ianet.cli.main import main

if __name__ == "__main__":
    main()
