"""gunicorn's gevent workers on the accept loop in C:

    gunicorn -k gevent_cbase.gunicorn.GeventWorker app:app
    gunicorn -k gevent_cbase.gunicorn.GeventPyWSGIWorker app:app

They are the workers ``gevent`` and ``gevent_pywsgi`` with install() called in each worker
process: same settings, same signals. ``GeventWorker`` also answers a client that was accepted just
before the worker has closed its listener. With ``GEVENT_CBASE=0`` in the environment they run on
gevent's class.
"""
from gevent_cbase import _requirements

try:
    from gunicorn.workers import ggevent
except ModuleNotFoundError as ex:
    _requirements.check_extra(ex, 'gunicorn', 'gunicorn')
    raise

from gevent_cbase._install import install

__all__ = ['GeventPyWSGIWorker', 'GeventWorker']


class _Installing:
    """What the workers add to gunicorn's."""

    def patch(self):
        """Patch the standard library as gunicorn does, then install() in this process.

        It runs after the fork, so that the master stays as it is, and before the application
        is loaded and the servers are made.
        """
        super().patch()
        install()


class _Listener:
    """What gunicorn's handler asks of its listener, which may be closed when it does."""

    def __init__(self, listener):
        self.name = listener.getsockname()

    def getsockname(self):
        return self.name


class _Answering(_Installing):
    """What ``GeventWorker`` adds besides."""

    def patch(self):
        super().patch()
        self._listeners = {listener: _Listener(listener) for listener in self.sockets}

    def handle(self, listener, client, addr):
        super().handle(self._listeners[listener], client, addr)


class GeventWorker(_Answering, ggevent.GeventWorker):
    """The worker ``gevent``: StreamServer and gunicorn's own HTTP parser.

    .. versionadded:: 1.0
    """


class GeventPyWSGIWorker(_Installing, ggevent.GeventPyWSGIWorker):
    """The worker ``gevent_pywsgi``: ``gevent.pywsgi`` parses HTTP.

    .. versionadded:: 1.0
    """
