"""What is known of gevent's releases, in gevent_cbase/_native/known.py."""
import gevent
import pytest

from gevent_cbase._native import greenlets, sockets


@pytest.mark.fast_path('sockets', 'watchers', 'greenlets')
@pytest.mark.parametrize('version, newer', [
    ('25.9.1', False), ('26.9.0', False), ('26.9.3', False), ('26.10.0.dev0', True),
    ('26.10.0a1', True), ('27.1', True)])
def test_compiled_code_that_nobody_has_read(monkeypatch, version, newer):
    """Is not leaned on."""
    monkeypatch.setattr(gevent, '__version__', version)
    assert (sockets.why_watchers_off() == 'gevent may close them in another way') is newer
    assert (greenlets.why_off() == 'gevent may make them in another way') is newer
