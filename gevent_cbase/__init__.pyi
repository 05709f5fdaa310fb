from gevent_cbase.baseserver import BaseServer as BaseServer
from gevent_cbase.baseserver import parse_address as parse_address

__all__ = ['BaseServer', 'install', 'is_installed', 'parse_address', 'uninstall', '__version__']

__version__: str

def install(*, datastack: bool = True) -> None: ...
def uninstall() -> None: ...
def is_installed() -> bool: ...
