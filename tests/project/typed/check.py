"""What a type checker says of the programs beside this file: python check.py mypy|pyright

It has to be silent about right.py and servers.py, and to find the mistake in each line of wrong.py
that ends in a comment, which is mypy's word for it, and nothing else. It sees the packages of the
Python that runs this.
"""
import importlib.util
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
#: to a strict mypy without types-gevent, what derives from gevent's servers is itself a mistake
UNTYPED = [] if importlib.util.find_spec('gevent-stubs') else [
    '--ignore-missing-imports', '--allow-subclassing-any']


def mypy(programs):
    """{(file, line, kind)} of the errors."""
    out = subprocess.run([sys.executable, '-m', 'mypy', '--strict', '--config-file', '', *UNTYPED,
                          *programs], text=True, stdout=subprocess.PIPE).stdout
    assert re.search(r'^(Found|Success)', out, re.M), out
    return {(os.path.basename(name), int(line), kind) for name, line, kind in
            re.findall(r'^(.*\.pyi?):(\d+): error: .*\[([\w-]+)\]$', out, re.M)}


def pyright(programs):
    """{(file, line)} of the errors and warnings."""
    out = subprocess.run([sys.executable, '-m', 'pyright', '--pythonpath', sys.executable,
                          '--outputjson', *programs], text=True, stdout=subprocess.PIPE).stdout
    answer = json.loads(out)
    assert answer['summary']['filesAnalyzed'] == len(programs), out
    return {(os.path.basename(one['file']), one['range']['start']['line'] + 1)
            for one in answer['generalDiagnostics']}


def mistakes(name):
    """{(file, line, kind)} as the comments say."""
    with open(os.path.join(HERE, name)) as file:
        return {(name, number, line.split('  # ')[1].strip())
                for number, line in enumerate(file, 1) if '  # ' in line}


def main(checker):
    expected = mistakes('wrong.py')
    if checker == 'pyright':
        expected = {one[:2] for one in expected}
    found = globals()[checker]([os.path.join(HERE, name)
                                for name in ('right.py', 'servers.py', 'wrong.py')])
    for what, which in ('not found', expected - found), ('found', found - expected):
        for one in sorted(which):
            print(what, *one)
    print('%s: %d of %d mistakes found, %d more' % (
        checker, len(found & expected), len(expected), len(found - expected)))
    return found != expected


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
