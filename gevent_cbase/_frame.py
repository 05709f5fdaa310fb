"""A Python frame where there would be none: see spawn_in_frame in src/lifecycle.c."""


def call(function, *args, **kwargs):
    return function(*args, **kwargs)
