"""python -m gevent_cbase.recipes: list the recipes, show one, copy them into a folder.

In the source tree they are in ``recipes/``; a wheel has them in ``gevent_cbase/_recipes/``, where
``setup.py`` puts them.
"""
import argparse
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = [os.path.join(HERE, '_recipes'), os.path.join(os.path.dirname(HERE), 'recipes')]

DESCRIPTION = """\
Short programs and configuration files to start from; RECIPES.rst and docs/deploy.rst in the source
distribution are about them. Without a NAME all are listed.
"""


def folder():
    """Where the recipes are."""
    for one in FOLDERS:
        if os.path.isdir(one):
            return one
    sys.exit('gevent_cbase.recipes: there is no folder %s' % FOLDERS[0])


def names():
    """The names of all recipes, sorted: paths below the folder, those of programs first."""
    top = folder()
    found = [os.path.relpath(os.path.join(where, name), top)
             for where, _, files in os.walk(top) if '__pycache__' not in where for name in files]
    return sorted(found, key=lambda name: (os.sep in name, name))


def text_of(name):
    """The text of a recipe."""
    with open(os.path.join(folder(), name), encoding='utf-8') as file:
        return file.read()


def summary(text):
    """What the first line of a recipe says of it, in a docstring or a comment."""
    return re.match(r'(?:"""|# )(.*)', text)[1].rstrip('"')


def chosen(words):
    """The names that are meant: each is a recipe, or a folder of some."""
    found = []
    for word in words:
        some = [name for name in names() if (name + os.sep).startswith(word.rstrip('/') + os.sep)]
        if not some:
            sys.exit('gevent_cbase.recipes: there is no recipe %s' % word)
        found += some
    return found


def copy(some, target):
    """Copy recipes into a folder, under their own names; never over a file that is there."""
    paths = {name: os.path.join(target, os.path.basename(name)) for name in some}
    for path in paths.values():
        if os.path.exists(path):
            sys.exit('gevent_cbase.recipes: %s is there already' % path)
    os.makedirs(target, exist_ok=True)
    for name, path in paths.items():
        shutil.copyfile(os.path.join(folder(), name), path)
        print(path)


def main():
    parser = argparse.ArgumentParser(
        prog='python -m gevent_cbase.recipes', description=DESCRIPTION)
    parser.add_argument('names', nargs='*', metavar='NAME', help='a recipe, or a folder of some')
    parser.add_argument('--copy', metavar='FOLDER',
                        help='copy them there instead of showing them; without a NAME all')
    args = parser.parse_args()
    if args.copy is not None:
        copy(chosen(args.names) if args.names else names(), args.copy)
    elif args.names:
        for name in chosen(args.names):
            sys.stdout.write(text_of(name))
    else:
        width = max(map(len, names()))
        for name in names():
            print('%-*s  %s' % (width, name, summary(text_of(name))))


if __name__ == '__main__':
    main()
