"""What went wrong outside the package, said so that the user can mend it."""


class UserError(Exception):
    """A fault of an input, a configuration or the machine.

    The message names the file, field or override at fault and what to do. Entry points print it
    without a stack; library users may catch it.
    """


class VideoError(UserError):
    """A video that is missing, empty or cannot be decoded. At run time it costs one sample."""
