"""`python -m router` is the command `hybrid`."""

from router.cli import main

main()
