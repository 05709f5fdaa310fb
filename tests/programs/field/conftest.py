"""Tools of others around a server, stock and drop-in: ``nox -s field``.

The tools are in ``.ci/field.txt``. Nothing here is collected unless GEVENT_CBASE_TESTS is
``field``, and nothing here leaves the loopback interface.
"""
import os
import sysconfig

import pytest

from sides import Side


@pytest.fixture(params=['gevent', 'cbase'])
def side(request, tmp_path):
    """Each test runs on both."""
    return Side(request.param, str(tmp_path))


@pytest.fixture
def tool():
    """``tool(name)`` is the path of a command that was installed."""
    return lambda name: os.path.join(sysconfig.get_path('scripts'), name)
