"""The exceptions for errors that the user can resolve, and advice on outputs of stages."""


class ProtoMaskError(Exception):
    """An error that the user can resolve; its message says what is wrong, where, and what to do.

    The command line prints the message without a stack trace and exits with status 1.
    """


class NoRuleError(ProtoMaskError):
    """Relevance cannot be propagated through a network, since it has layers without a rule."""


def make(stage: str) -> str:
    """Returns the advice for an output that is not there.

    Args:
        stage: name of the stage in dvc.yaml that makes it.
    """
    return f"run `dvc repro {stage}`"


def rerun(stage: str) -> str:
    """Returns the advice for an output that is damaged, or was made from something else.

    `dvc repro` restores a changed output from DVC's cache, and runs the stage if its inputs,
    parameters or code have changed. It does neither where DVC's records or cache are wrong. Outputs
    are links to the cache, of which DVC compares only writable files with their hashes: so damage
    that lies in both is found after a `chmod`.

    Args:
        stage: name of the stage in dvc.yaml that makes it.
    """
    return (
        f"run `dvc repro {stage}`, and if the error comes back, `chmod -R u+w artifacts` and "
        f"`dvc repro --force --single-item {stage}`"
    )
