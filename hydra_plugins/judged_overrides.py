"""Has `dvc exp run -S` judged before it changes params.yaml.

DVC loads the Hydra plugins of a repository from this folder whenever it composes params.yaml from
the presets in `conf/`, and has no other place in which to say that an override is wrong.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from dvc.exceptions import InvalidArgumentError
from dvc.utils.cli_parse import to_path_overrides
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
try:
    from pipeline.errors import ProtoMaskError
    from stages.overrides import refuse_unusable
finally:
    sys.path.remove(str(ROOT))


class JudgedOverrides(SearchPathPlugin):
    """Judges the overrides of the command `dvc exp run` that this process runs."""

    judged = False

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Leaves the search path alone; Hydra calls it before each composition.

        Raises:
            InvalidArgumentError: an override cannot be meant; DVC prints the message.
        """
        if JudgedOverrides.judged or not {"exp", "experiments"} & set(sys.argv[1:]):
            return
        JudgedOverrides.judged = True
        here = Path.cwd()
        if not here.is_relative_to(ROOT):  # another repository, with this one on Python's path
            return
        if here != ROOT:
            raise InvalidArgumentError(f"dvc.yaml is not here: run the command in {ROOT}")
        try:
            refuse_unusable(_overrides_of(sys.argv[1:]), ROOT)
        except ProtoMaskError as error:
            raise InvalidArgumentError(str(error)) from None


def _overrides_of(arguments: list[str]) -> list[str]:
    """Returns the overrides of params.yaml among a command's arguments."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    given = parser.parse_known_args(arguments)[0].set_param
    return to_path_overrides(given).get("params.yaml", [])
