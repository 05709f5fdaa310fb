"""Build of the extension modules, and the long description; all else is in pyproject.toml."""
import glob
import os
import re
import shutil
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

FLAGS = ['-std=c11', '-O3', '-fvisibility=hidden']

if sys.implementation.name != 'cpython':
    sys.exit('gevent_cbase is an extension of CPython; on %s use gevent itself.'
             % sys.implementation.name)
if sysconfig.get_config_var('Py_GIL_DISABLED'):
    sys.exit('gevent_cbase relies on the GIL; on a free-threaded CPython use gevent itself.')


class BuildExt(build_ext):
    """build_ext that says in a sentence what is needed and not there."""

    def build_extensions(self):
        compiler = getattr(self.compiler, 'compiler_so', None)
        if compiler and shutil.which(compiler[0]) is None:
            sys.exit('gevent_cbase is written in C, and the C compiler %r is not there. '
                     'Install one (Debian: apt install gcc; Fedora: dnf install gcc; '
                     'Alpine: apk add gcc musl-dev), or name yours in CC.' % compiler[0])
        folders = [*self.include_dirs, sysconfig.get_path('include')]
        if not any(os.path.exists(os.path.join(folder, 'Python.h')) for folder in folders):
            sys.exit('gevent_cbase is written in C, and the header Python.h of CPython %d.%d is '
                     'not there. Install it (Debian: apt install python3-dev; Fedora: dnf install '
                     'python3-devel; Alpine: apk add python3-dev).' % sys.version_info[:2])
        super().build_extensions()


class BuildPy(build_py):
    """build_py that adds the recipes to what is installed, for ``python -m gevent_cbase.recipes``.
    """

    def run(self):
        super().run()
        if not self.editable_mode:
            target = os.path.join(self.build_lib, 'gevent_cbase', '_recipes')
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree('recipes', target, ignore=shutil.ignore_patterns('__pycache__'))


def extension(name, folder):
    return Extension('gevent_cbase.' + name,
                     sources=sorted(glob.glob(folder + '/**/*.c', recursive=True)),
                     depends=sorted(glob.glob(folder + '/**/*.h', recursive=True)),
                     include_dirs=[folder],
                     extra_compile_args=FLAGS)


def description():
    """README as the page of a package index shows it: without the files beside it, as charts."""
    with open('README.rst', encoding='utf-8') as file:
        return re.sub(r'^\.\. image:: (\S+)\n(?: +.*\n)*',
                      r'The chart of these numbers is ``\1`` in the source distribution.\n',
                      file.read(), flags=re.M)


modules = [extension('_cbase', 'src')]
if sys.platform == 'linux':
    modules.append(extension('_load', 'load'))  # the clients of gevent_cbase.bench

setup(cmdclass={'build_ext': BuildExt, 'build_py': BuildPy}, ext_modules=modules,
      long_description=description(), long_description_content_type='text/x-rst')
