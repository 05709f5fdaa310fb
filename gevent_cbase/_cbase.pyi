# Besides these the extension module has functions for the modules beside it only.
from typing import Any

from gevent_cbase.baseserver import BaseServer as BaseServer
from gevent_cbase.baseserver import parse_address as parse_address

def __getattr__(name: str) -> Any: ...
