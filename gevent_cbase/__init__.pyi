from typing import NamedTuple, Protocol, type_check_only

from gevent_cbase.baseserver import BaseServer as BaseServer
from gevent_cbase.baseserver import parse_address as parse_address

__all__ = [
    'BaseServer',
    'ServerStats',
    'install',
    'is_installed',
    'parse_address',
    'servers',
    'stats',
    'uninstall',
    '__version__',
]

__version__: str

def install(*, datastack: bool = True, max_reads: int | None = None) -> bool: ...
def uninstall() -> None: ...
def is_installed() -> bool: ...

class ServerStats(NamedTuple):
    accepted: int
    spawn_errors: int
    accept_errors: dict[int, int]
    full_pauses: int
    full_seconds: float
    backoff_pauses: int
    backoff_seconds: float
    delay: float
    fast_paths: dict[str, str | None]

def servers() -> list[BaseServer]: ...

# gevent's own servers, too: for a type checker their BaseServer, from types-gevent, is not ours
@type_check_only
class _Server(Protocol):
    @property
    def max_accept(self) -> int: ...
    def start_accepting(self) -> None: ...
    def stop_accepting(self) -> None: ...

def stats(server: _Server) -> ServerStats: ...
