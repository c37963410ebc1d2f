"""The one exception that ProtoMask raises for what its user can put right."""


class ProtoMaskError(Exception):
    """Says what was wrong, where, and what to do about it.

    The command line prints it as it stands and exits with status 1, without a stack trace.
    """
