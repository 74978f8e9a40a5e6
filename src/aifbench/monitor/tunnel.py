"""The ssh line that brings the pages of services to a user's own machine. Pure, but for a look at free ports.

Two ways: the login host reaches the services' addresses itself (`-L local:address:port`), or a second hop
ends on their node (`-J login`), which services that listen on the loopback alone need, and sites that part
their nodes from the login hosts.
"""

import ipaddress
import re
import shlex
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aifbench.errors import ConfigError

DEFAULT_SSH_PORT = 22
# Where people look for a page; others get the number that they have on their node.
FAMILIAR_PORTS = {"prometheus": 9090, "grafana": 3000}
# No name begins with a hyphen: ssh would take it for an option.
_LOGIN = re.compile(r"(?:(\w[\w.-]*)@)?(\w[\w.-]*|\[[0-9A-Fa-f:]+\])(?::([0-9]{1,5}))?", re.ASCII)
_SETTING = "put AIFBENCH_LOGIN=user@host:port into .env, as your own machine reaches this site by ssh"
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Login:
    """How ssh reaches the site from outside."""

    user: str
    host: str
    port: int = DEFAULT_SSH_PORT

    @property
    def target(self) -> str:
        return f"{self.user}@{self.host}"


@dataclass(frozen=True, slots=True)
class Page:
    """Something that a browser can open: where it listens, and the node that this is on."""

    name: str
    address: str
    port: int
    node: str
    scheme: str = "http"

    @property
    def is_on_loopback(self) -> bool:
        with suppress(ValueError):
            return ipaddress.ip_address(self.address).is_loopback
        return self.address == "localhost"

    @property
    def where(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Forward:
    """A page and the port that it gets on the user's machine."""

    local_port: int
    page: Page

    @property
    def url(self) -> str:
        return f"{self.page.scheme}://localhost:{self.local_port}/"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One ssh connection. With a `node` it ends there, else on the login host."""

    login: Login
    forwards: tuple[Forward, ...]
    node: str = ""


def parse_login(text: str, user: str) -> Login:
    """Of `[user@]host[:port]`; `user` is whose session this is. Raises ConfigError."""
    if not text:
        raise ConfigError("it is not known how your machine reaches this site", hint=_SETTING)
    match = _LOGIN.fullmatch(text)
    port = int(match[3] or DEFAULT_SSH_PORT) if match else 0
    if match is None or not 1 <= port <= _HIGHEST_PORT:
        raise ConfigError(f"AIFBENCH_LOGIN is {text!r}", hint=_SETTING)
    return Login(match[1] or user, match[2].strip("[]"), port)


def forwards(
    pages: Sequence[Page], is_free: Callable[[int], bool], first_port: int = 0
) -> tuple[Forward, ...]:
    """A local port for each page: a familiar one, or from `first_port` on; where that is taken, the next."""
    used: set[int] = set()
    made = []
    for number, page in enumerate(pages):
        wanted = first_port + number if first_port else FAMILIAR_PORTS.get(page.name, page.port)
        port = next(port for port in _candidates(wanted) if port not in used and is_free(port))
        used.add(port)
        made.append(Forward(port, page))
    return tuple(made)


def _candidates(wanted: int) -> Iterator[int]:
    """Upwards, then from where no privilege is needed."""
    yield from range(max(wanted, 1024), _HIGHEST_PORT + 1)
    yield from range(1024, wanted)


def tunnels(login: Login, made: Iterable[Forward], *, jump: bool) -> list[Tunnel]:
    """One connection for what the login host reaches, and one more for each node where it has to end.

    Raises ConfigError for a page that only its node reaches, when that is not known.
    """
    by_node: dict[str, list[Forward]] = {}
    for forward in made:
        needs_node = jump or forward.page.is_on_loopback
        if needs_node and not forward.page.node:
            raise ConfigError(
                f"{forward.page.name} listens at {forward.page.where}, on a node that is not known"
            )
        by_node.setdefault(forward.page.node if needs_node else "", []).append(forward)
    return [Tunnel(login, tuple(found), node) for node, found in by_node.items()]


def command_line(tunnel: Tunnel) -> str:
    """One line to paste into a terminal of one's own machine; it runs until Ctrl-C."""
    login = tunnel.login
    words = ["ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=60"]
    for forward in tunnel.forwards:
        words += ["-L", f"{forward.local_port}:{forward.page.where}"]
    if tunnel.node:
        words += ["-J", _jump(login), f"{login.user}@{tunnel.node}"]
    else:
        words += [*([] if login.port == DEFAULT_SSH_PORT else ["-p", str(login.port)]), login.target]
    return shlex.join(words)


def config_block(tunnel: Tunnel, name: str) -> str:
    """The same as a block of ~/.ssh/config, for `ssh -N NAME`."""
    login = tunnel.login
    lines = [f"Host {name}"]
    if tunnel.node:
        lines += [f"HostName {tunnel.node}", f"User {login.user}", f"ProxyJump {_jump(login)}"]
    else:
        lines += [f"HostName {login.host}", f"User {login.user}", f"Port {login.port}"]
    lines += [f"LocalForward {forward.local_port} {forward.page.where}" for forward in tunnel.forwards]
    lines += ["ServerAliveInterval 60", "ExitOnForwardFailure yes"]
    return "\n    ".join(lines)


def _jump(login: Login) -> str:
    host = f"[{login.host}]" if ":" in login.host else login.host
    return f"{login.user}@{host}" + ("" if login.port == DEFAULT_SSH_PORT else f":{login.port}")


def is_free_here(port: int) -> bool:
    """Whether nobody listens on that port of this machine, which need not be the user's."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
