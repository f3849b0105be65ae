"""The one exception for input that a person can mend."""


class DiffjaxError(ValueError):
    """Says what is wrong, with which file or value, and what to do about it.

    The command line prints the message alone and exits with code 2.
    """
