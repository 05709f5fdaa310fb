# Besides these the extension module has functions for the modules beside it only.
from typing import Any

from gevent_cbase.baseserver import BaseServer as BaseServer

def __getattr__(name: str) -> Any: ...
