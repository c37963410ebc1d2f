"""The exception for errors that the user can resolve, and the most common advice."""


class ProtoMaskError(Exception):
    """An error that the user can resolve; its message says what is wrong, where, and what to do.

    The command line prints the message without a stack trace and exits with status 1.
    """


def rerun(stage: str) -> str:
    """Returns the advice to rerun a stage whose output does not match its inputs.

    `dvc repro` alone does nothing if the output is up to date by DVC's records.

    Args:
        stage: name of the stage in dvc.yaml.
    """
    return (
        f"run `dvc repro {stage}`, and if DVC says that nothing changed, "
        f"`dvc repro --force --single-item {stage}`"
    )
