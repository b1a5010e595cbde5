"""What went wrong outside the package, said so that the user can mend it."""


class UserError(Exception):
    """A fault of an input, a configuration or the machine.

    The message names the file, field or override at fault and what to do. Entry points print it
    without a stack; library users may catch it.
    """


class VideoError(UserError):
    """A video that is missing, empty or cannot be decoded. At run time it costs one sample."""


class Preempted(SystemExit):
    """A scheduler has asked the run to stop, and it did, with everything saved.

    Args:
        message: what was saved and how to go on.
        code: exit status of the process.
    """

    CODE = 75
    """Exit status that says so: EX_TEMPFAIL, try again."""

    def __init__(self, message: str, code: int = CODE) -> None:
        super().__init__(code)
        self.message = message
