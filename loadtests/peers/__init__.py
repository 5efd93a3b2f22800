"""This router beside others, measured in one run; see README.md."""
