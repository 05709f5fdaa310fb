"""gunicorn's gevent workers on the accept loop in C:

    gunicorn -k gevent_cbase.gunicorn.GeventWorker app:app
    gunicorn -k gevent_cbase.gunicorn.GeventPyWSGIWorker app:app

They are the workers ``gevent`` and ``gevent_pywsgi`` with install() called in each worker
process, and nothing else: same settings, same signals. With ``GEVENT_CBASE=0`` in the
environment they are gunicorn's.
"""
try:
    from gunicorn.workers import ggevent
except ModuleNotFoundError as ex:
    if (ex.name or '').partition('.')[0] != 'gunicorn':
        raise
    raise ModuleNotFoundError("gevent_cbase.gunicorn needs gunicorn: "
                              "pip install 'gevent_cbase[gunicorn]'", name=ex.name) from None

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


class GeventWorker(_Installing, ggevent.GeventWorker):
    """The worker ``gevent``: StreamServer and gunicorn's own HTTP parser.

    .. versionadded:: 1.0
    """


class GeventPyWSGIWorker(_Installing, ggevent.GeventPyWSGIWorker):
    """The worker ``gevent_pywsgi``: ``gevent.pywsgi`` parses HTTP.

    .. versionadded:: 1.0
    """
