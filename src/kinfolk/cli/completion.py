"""`kinfolk completion`: what makes a shell complete commands and options."""

import sys
from typing import Literal

from kinfolk.cli import exits


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script that makes a shell complete commands and options, as in `source <(kinfolk completion bash)`.

    Parameters
    ----------
    shell
        Whose.
    """
    from kinfolk.cli import app

    sys.stdout.write(app.generate_completion(prog_name="kinfolk", shell=shell))
    return exits.YES
