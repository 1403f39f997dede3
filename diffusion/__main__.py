# pyright: strict
"""The command `diffusion`, also as `python -m diffusion`.

What needs no Lightning is answered before it is imported: help, and most mistakes.
"""

import os
import sys
from collections.abc import Sequence

from diffusion import __version__
from diffusion.cli import arguments, commands
from diffusion.cli.errors import one_line


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command; errors that the user can mend are one line.

    With the environment variable DIFFUSION_TRACEBACK=1 they show where they come from, too.

    Args:
        args: What follows the program's name; by default the process's own.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(f"{commands.overview()}\n")
        return
    if args[0] == "--version":
        sys.stdout.write(f"diffusion {__version__}\n")
        return
    try:
        if args[0] in commands.COMMANDS:
            commands.run(args[0], args[1:])
            return
        arguments.check_arguments(args, commands.COMMANDS)
    except (ValueError, OSError) as error:
        if os.environ.get("DIFFUSION_TRACEBACK"):
            raise
        sys.stderr.write(f"diffusion: error: {one_line(str(error))}\n")
        raise SystemExit(2) from None
    from diffusion.cli.main import main as run

    run(args)


if __name__ == "__main__":
    main()
