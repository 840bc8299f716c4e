"""Exceptions that more than one room knows."""


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and what to do; the CLI prints it and exits with 2."""


class LearnerLost(Exception):
    """The learner's processes died, with all that they knew. A new learner is ready to load the last checkpoint."""
