"""`python3 -m commands`: the command `protomask`, with the code of the current folder."""

from commands.app import main

if __name__ == "__main__":
    main()
