"""Children of tests that end by os._exit() write what gcov has counted, too."""
import os
import sys

_exit = os._exit


def dump_and_exit(status):
    module = sys.modules.get('gevent_cbase._cbase')
    if module is not None:
        import ctypes
        ctypes.CDLL(module.__file__).coverage_dump()
    _exit(status)


os._exit = dump_and_exit
