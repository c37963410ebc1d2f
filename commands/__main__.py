"""`python3 -m commands`: the command `protomask`, with the code of the current folder."""

from commands.app import app
from stages import launch
from stages.app import run

if __name__ == "__main__":
    launch.refuse_other_code()
    launch.settle_surroundings()
    run(app)
