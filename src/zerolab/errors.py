"""Exceptions that more than one room knows."""


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and what to do; the CLI prints it and exits with 2."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run after a whole step, and a checkpoint was saved.

    It is a KeyboardInterrupt, so that no handler of errors takes the unfinished run for a finished one. The CLI exits
    with 130.
    """


class LearnerLost(Exception):
    """The learner's processes died, with all that they knew. A new learner is ready to load the last checkpoint."""
