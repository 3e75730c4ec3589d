"""Mistakes of the user, in contrast to bugs of the package."""


class UserError(ValueError):
    """Something from outside cannot be used: an argument, a data set, an environment, a missing driver.

    Its message is one line that says what was found, what was expected, and what to do; a command prints it without a
    traceback.
    """
