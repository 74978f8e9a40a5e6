"""Commands about the machine and the installation."""

from argparse import Namespace

from cmd2 import with_argparser

from aifbench.repl import wording
from aifbench.repl.parsers import Parser
from aifbench.repl.topic import Topic


def _doctor_parser() -> Parser:
    return Parser(
        "Check the installation, the scheduler and the disk, and say how to mend what is wrong.", "doctor"
    )


class System(Topic):
    DEFAULT_CATEGORY = "Shell"

    @with_argparser(_doctor_parser)
    def do_doctor(self, _args: Namespace) -> None:
        """Check this machine and say how to mend it."""
        findings = self.session.doctor()
        self._cmd.last_result = findings
        self._cmd.poutput(wording.findings_text(findings))
        problems = sum(finding.is_problem for finding in findings)
        if problems:
            self._cmd.fail(f"{problems} of {len(findings)} checks found a problem")
