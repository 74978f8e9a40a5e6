"""Commands to look at what runs: services' pages through a tunnel, a live view, and the program's own log."""

import time
from argparse import Namespace
from collections.abc import Sequence
from getpass import getuser
from typing import TYPE_CHECKING

from cmd2 import with_argparser

from aifbench.config import EVENT_LEVELS
from aifbench.errors import NotReady, ServiceError, UsageError
from aifbench.eventlog import event_text
from aifbench.repl import completion
from aifbench.repl.parsers import Parser
from aifbench.repl.progress import can_rewrite
from aifbench.repl.topic import Topic
from aifbench.units import parse_count, parse_duration_s

if TYPE_CHECKING:
    from aifbench.monitor.live import RunWatch
    from aifbench.monitor.tunnel import Forward, Page
    from aifbench.servers.status import ServiceStatus

MONITORS = "monitors"
# Of the monitors, those that a browser has something of, and the user that each asks for.
_MONITOR_USERS = {"prometheus": "aifbench", "grafana": "admin"}
_SNAPSHOT_LINES = 40
_LOG_LINES = 200
_SHORTEST_INTERVAL_S = 0.2


def _tunnel_parser() -> Parser:
    parser = Parser(
        "Print the ssh line that brings the pages of services to your own machine: of the monitors, or of "
        "those named. The login host is taken from AIFBENCH_LOGIN.",
        "tunnel",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="services", choices_provider=completion.instances
    )
    parser.add_argument(
        "--config", action="store_true", help="as a block for ~/.ssh/config, instead of a line"
    )
    parser.add_argument(
        "--jump", action="store_true", help="through the login host to the node itself, and from there"
    )
    parser.add_argument("--port", metavar="N", help="first of the ports on your machine, such as 13000")
    return parser


def _watch_parser() -> Parser:
    parser = Parser(
        "Watch a service: its state, the benchmark that loads it, whoever runs that, its nodes and its log. "
        "Ctrl-C ends the view and nothing else.",
        "watch chroma",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="service", choices_provider=completion.instances
    )
    parser.add_argument("--once", action="store_true", help="look once, and print it")
    parser.add_argument("--interval", default="1s", metavar="T", help="time between two looks (default 1s)")
    return parser


def _events_parser() -> Parser:
    levels = ", ".join(EVENT_LEVELS)
    parser = Parser(
        "Show the program's own log: what was typed, started and measured, and what went wrong.",
        "events --level error --since 1d",
    )
    parser.add_argument("-n", "--lines", default="20", metavar="N", help="how many (default 20)")
    parser.add_argument(
        "--level", default="debug", metavar="LEVEL", choices=EVENT_LEVELS[:-1], help="only from this level on"
    )
    parser.add_argument("--since", metavar="TIME", help="only of the last so long, such as 2h")
    parser.add_argument(
        "--set-level", metavar="LEVEL", choices=EVENT_LEVELS, help=f"write from this level on: {levels}"
    )
    parser.add_argument("--set-keep", metavar="TIME", help="how long days are kept, such as 30d")
    return parser


class Monitoring(Topic):
    DEFAULT_CATEGORY = "Monitoring"

    @with_argparser(_watch_parser)
    def do_watch(self, args: Namespace) -> None:
        """Watch a service and the benchmark that loads it."""
        from aifbench.repl.watch_screen import Screen

        interval_s = parse_duration_s(args.interval, "--interval")
        if interval_s < _SHORTEST_INTERVAL_S:
            raise UsageError(f"--interval {args.interval} is too short", hint="give 200ms or more")
        name = args.name or self.only_service()
        watch = self.session.run_watch(name)
        if args.once or not can_rewrite(self._cmd.stdout):
            _, lines = self._look(name, watch, _SNAPSHOT_LINES)
            self._cmd.poutput("\n".join(lines))
            return
        lines = []
        try:
            with Screen(self._cmd.stdout) as screen:
                while True:
                    status, lines = self._look(name, watch, screen.height)
                    screen.draw(lines)
                    if not status.is_alive:
                        break
                    time.sleep(interval_s)
        except KeyboardInterrupt:
            pass  # how one leaves it
        self._cmd.poutput("\n".join(lines))

    def _look(self, name: str, watch: "RunWatch", height: int) -> "tuple[ServiceStatus, list[str]]":
        from aifbench.repl.watch_screen import watch_lines

        status = self.session.status_of(name)
        run = watch.look()
        nodes = self.session.nodes_now(name, run.run_id if run else "")
        try:
            log = self.session.logs(name, lines=_LOG_LINES)
        except ServiceError as error:
            log = [error.message]
        encoding = getattr(self._cmd.stdout, "encoding", None) or ""
        bars = {} if encoding.lower().replace("-", "") == "utf8" else {"bars": ""}
        return status, watch_lines(status, run, nodes, log, height=height, **bars)

    @with_argparser(_tunnel_parser)
    def do_tunnel(self, args: Namespace) -> None:
        """Print the ssh line to the pages of services."""
        from aifbench.monitor.tunnel import forwards, is_free_here

        first_port = parse_count(args.port, "--port", minimum=1024, maximum=65_000) if args.port else 0
        statuses = [self.session.status_of(name) for name in args.names or self._monitors()]
        pages = [page for status in statuses for page in pages_of(status)]
        if self.session.scheduler_kind == "local":
            self._cmd.poutput("no tunnel is needed: everything runs on this machine")
            self._tell_pages([(page, f"{page.scheme}://{page.where}/") for page in pages])
        else:
            made = forwards(pages, is_free_here, first_port)
            self._tell_tunnels(statuses, made, args)
            self._tell_pages([(forward.page, forward.url) for forward in made])
        self._tell_secrets(statuses)

    def _monitors(self) -> list[str]:
        alive = self.session.instances()
        return [name for name in alive if self.session.kind_of(name) == MONITORS] or [self.only_service()]

    def _tell_tunnels(
        self, statuses: "Sequence[ServiceStatus]", made: "Sequence[Forward]", args: Namespace
    ) -> None:
        from aifbench.monitor.tunnel import command_line, config_block, parse_login, tunnels

        login = parse_login(self.session.config.login, getuser())
        found = tunnels(login, made, jump=args.jump)
        if not args.config:
            each = "in a terminal of its own each, " if len(found) > 1 else ""
            self._cmd.poutput(f"on your own machine, {each}until Ctrl-C:\n")
            self._cmd.poutput("\n\n".join(command_line(tunnel) for tunnel in found) + "\n")
            return
        label = "-".join(dict.fromkeys(status.name for status in statuses))
        names = [f"aifbench-{label}" + (f"-{tunnel.node}" if len(found) > 1 else "") for tunnel in found]
        blocks = [config_block(tunnel, name) for tunnel, name in zip(found, names, strict=True)]
        self._cmd.poutput("for ~/.ssh/config on your own machine:\n")
        self._cmd.poutput("\n\n".join(blocks) + "\n")
        self._cmd.poutput(f"then: {'; '.join(f'ssh -N {name}' for name in names)}")

    def _tell_pages(self, found: "Sequence[tuple[Page, str]]") -> None:
        width = max(len(page.name) for page, _ in found)
        for page, url in found:
            user = _MONITOR_USERS.get(page.name)
            self._cmd.poutput(f"  {page.name:{width}}  {url}" + (f"  user {user}" if user else ""))

    def _tell_secrets(self, statuses: "Sequence[ServiceStatus]") -> None:
        for status in statuses:
            if status.endpoint and status.endpoint.secret_file:
                what = "password" if status.kind == MONITORS else "key"
                self._cmd.poutput(f"the {what} of {status.name} is in {status.endpoint.secret_file}")

    @with_argparser(_events_parser)
    def do_events(self, args: Namespace) -> None:
        """Show the program's own log, or say how much of it is kept."""
        events = self.session.events
        lines = parse_count(args.lines, "--lines", maximum=100_000)
        since_s = time.time() - parse_duration_s(args.since, "--since") if args.since else 0.0
        if args.set_level or args.set_keep:
            events.level = args.set_level or events.level
            events.keep_s = parse_duration_s(args.set_keep, "--set-keep") if args.set_keep else events.keep_s
            events.expire()
            self._cmd.poutput(
                f"from {events.level} on, kept {events.keep_s / 86_400:g} days, as long as this shell lives; "
                "AIFBENCH_EVENTS_LEVEL and AIFBENCH_EVENTS_KEEP set it for good"
            )
            return
        found = events.read(lines, level=args.level, since_s=since_s)
        self._cmd.last_result = found
        self._cmd.poutput("\n".join(map(event_text, found)) or "no such event")


def pages_of(status: "ServiceStatus") -> "list[Page]":
    """What a browser or a program of one's own may want of a service. Raises NotReady without an address."""
    from aifbench.monitor.tunnel import Page

    endpoint = status.endpoint
    if endpoint is None or not status.is_alive:
        raise NotReady(
            f"{status.name} is {', '.join(filter(None, (status.stage.value, status.detail)))}",
            hint=f"`check {status.name} --wait` waits for it",
        )
    is_monitors = status.kind == MONITORS
    names = {"prometheus" if is_monitors else status.name: endpoint.port}
    for name, port in endpoint.ports.items():
        if not is_monitors or name in _MONITOR_USERS:
            names[name if is_monitors else f"{status.name}-{name}"] = port
    node = status.job.nodes[0] if status.job.nodes else ""
    pages = [Page(name, endpoint.host, port, node, endpoint.scheme) for name, port in names.items() if port]
    if endpoint.scheme == "file" or not pages:
        raise UsageError(f"{status.name} has nothing to open: it listens nowhere")
    return pages
