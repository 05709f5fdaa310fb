"""Build of the one extension module; all else is in pyproject.toml."""
import glob
import sys

from setuptools import Extension, setup

if sys.implementation.name != 'cpython':
    sys.exit('gevent_cbase is an extension of CPython; on %s use gevent itself.'
             % sys.implementation.name)

FLAGS = [] if sys.platform == 'win32' else ['-std=c11', '-O2', '-fvisibility=hidden']

setup(ext_modules=[
    Extension('gevent_cbase._cbase',
              sources=sorted(glob.glob('src/*.c')),
              depends=sorted(glob.glob('src/*.h')),
              extra_compile_args=FLAGS),
])
