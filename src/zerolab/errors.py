"""Exceptions that several packages use."""


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and what to do; the CLI prints it and exits with 2."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run after a whole step, and a checkpoint was saved.

    It is a KeyboardInterrupt, so that a handler of Exception does not catch it. The CLI exits with 130.
    """


class LearnerLost(Exception):
    """The learner's processes died and their state is lost. A new learner is ready to load the last checkpoint."""
