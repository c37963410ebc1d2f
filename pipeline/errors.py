"""The exception that ProtoMask raises for what its user can put right, and its commonest advice."""


class ProtoMaskError(Exception):
    """Says what was wrong, where, and what to do about it.

    The command line prints it as it stands and exits with status 1, without a stack trace.
    """


def rerun(stage: str) -> str:
    """Returns the advice to run a stage again, for an output that is not what its stage would make.

    `dvc repro` alone does nothing where DVC's records call the output up to date.
    """
    return (
        f"run `dvc repro {stage}`, and if DVC says that nothing changed, "
        f"`dvc repro --force --single-item {stage}`"
    )
