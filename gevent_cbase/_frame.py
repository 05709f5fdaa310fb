"""A Python frame where there would be none: see CBASE_METHOD in src/python/python.h."""


def call(function, /, *args, **kwargs):
    return function(*args, **kwargs)
