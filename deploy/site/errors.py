"""What stops a command about sites."""


class SiteError(Exception):
    """One line: which file or program, what is wrong, what to do."""
