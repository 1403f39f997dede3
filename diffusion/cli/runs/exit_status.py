"""How a command ends that is told to stop."""

import functools
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from diffusion.systems.checkpoints import lock

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
Main = Callable[[Sequence[str] | None], None]


def ending(main: Main) -> Callable[..., None]:
    """Gives a program the status that shells expect: 130 after Ctrl-C, 143 after SIGTERM.

    `fit` looks for SIGTERM itself, since it saves before it ends; the other commands have nothing
    to save, and end at once. Whatever was locked is unlocked.
    """

    @functools.wraps(main)
    def wrapped(args: Sequence[str] | None = None) -> None:
        args = sys.argv[1:] if args is None else args
        own = list(args[:1]) != ["fit"] and threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _end) if own else None
        try:
            main(args)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except SystemExit as end:
            from lightning.pytorch.utilities.exceptions import SIGTERMException

            if isinstance(end, SIGTERMException):
                raise SystemExit(TERMINATED) from None
            if isinstance(end.__context__, KeyboardInterrupt):  # the trainer makes it status 1
                raise SystemExit(INTERRUPTED) from None
            raise
        finally:
            lock.release()
            if own:
                signal.signal(signal.SIGTERM, before)

    return wrapped


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
