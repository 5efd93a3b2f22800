"""`python -m loadtests.swarm --help`."""

from loadtests.swarm.cli import main

if __name__ == "__main__":
    main(prog_name="python -m loadtests.swarm")
