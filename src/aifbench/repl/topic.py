"""What all command sets share: the session, the default service, and following a long operation on screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cmd2 import CommandSet

from aifbench.errors import UnknownService, UsageError
from aifbench.repl.progress import ChangeLog, LiveLine, ShellProgress, live_line

if TYPE_CHECKING:
    from aifbench.repl.shell import Shell  # noqa: F401  (used in a string below)
    from aifbench.session import Session


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and what to tell the user about it: what goes on, and how to return to it."""


@contextmanager
def on_interrupt(advice: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(advice) from None


class Topic(CommandSet["Shell"]):
    """The commands of one topic. `help` lists them in the order of definition."""

    @property
    def session(self) -> "Session":
        return self._cmd.session

    def only_service(self) -> str:
        """The service that is meant when none is named: the only live one, or else the only one there was."""
        names = self.session.instances() or [status.name for status in self.session.status()]
        if len(names) == 1:
            return names[0]
        if not names:
            raise UnknownService(
                "no service is running", hint=f"start one, such as `start {self.session.kinds()[0]}`"
            )
        raise UsageError("several services are running", hint=f"name one of: {', '.join(names)}")

    @contextmanager
    def live_line(self) -> Iterator[LiveLine | ChangeLog]:
        """A line for a state that is being watched, gone when it is over."""
        line = live_line(self._cmd.stdout, self._cmd.poutput)
        try:
            yield line
        finally:
            line.clear()

    @contextmanager
    def progress(self) -> Iterator[ShellProgress]:
        progress = ShellProgress(live_line(self._cmd.stdout, self._cmd.poutput), self._cmd.poutput)
        try:
            yield progress
        finally:
            progress.close()
