"""`python -m edge --config FILE`: the edge service alone."""

from edge.cli import edge

if __name__ == "__main__":
    edge(prog_name="python -m edge")
