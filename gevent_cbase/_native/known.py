"""All that is known of the releases of gevent and greenlet. Data, and nothing else.

What gevent_cbase leans on is either compared by its digest, or it is compiled, and somebody has
read it up to some release. Where the installed gevent differs, a fast path is off.

    python -m gevent_cbase._native.differences

prints what the installed gevent has that is not known. See CONTRIBUTING, *A new gevent*.
"""

#: The oldest releases that are supported; pyproject.toml has the same.
OLDEST = {'gevent': '25.9.1', 'greenlet': '3.2.2'}

#: The newest gevent whose compiled code was read, by the fast path that leans on it. In a newer
#: one the fast path is off.
NEWEST = {
    # Closing an idle io watcher does nothing, and two with the same bytes are the same: see the
    # classes `watcher` and `io` in gevent/libev/corecext.pyx, and gevent/_hub_primitives.py. There
    # is a limit of their size in src/native/io_watchers.c; they have 144 bytes on x86-64.
    'watchers': '26.9',
    # What a Greenlet is born with: see Greenlet.__init__ in gevent/greenlet.py, and its .pxd.
    'greenlets': '26.9',
}

# SHA-256 of the source text of each function or class that a native step stands for. They are the
# same in gevent 25.9.1 to 26.9.0. Where releases differ, there are several, with spaces between:
# the step has to be right for each.

SOCKETS = {
    'StreamServer.do_read':
        '6cb23b7571a826b591cc85006b271902bb4f56183e465074da634be6c325ea6d',
    'StreamServer.do_close':
        '728ac328c4119488e22b086fd13cf4a3708165c130a1510f460acb3d4e2fb24d',
    'socket.__init__':
        '187a3fe6b61a8376a7f5a1ed87f6c3bc8ce049d7a5b2bf1b9cf053e542fbc7c6',
    'socket.close':
        '55bda0dc5e10084356319cc0be6056f945b2b7d869196aeb188324703fd5cb4b',
    'socket._real_close':
        'dd2e99c3f699dfb9d82ab4685ff28cc4f9f95d999ec47c01f8092a302bbfa2c2',
    'socket._detach_socket':
        '018c0da0064114acdb04e5c2e573dd522eff1d95542e3566567642945ddade31',
    'socket._drop_ref_on_close':
        '56e8012202d54019c04f1f90a49dd0f559d999e7e4bf4c82a696d630a61d42cd',
    'SocketMixin.__init__':
        'b1a105882d425bb29b1da7a5b23a5616f1aa057d7c4ea2801182e15a3dd7f1e7',
    'SocketMixin._drop_events_and_close':
        '3964106f70668cecead88d7209fe63985b6e97696e1eed95a33e60b6c1f06191',
    '_closedsocket.__init__':
        '81c68a3ac86b05b30a1565189aae2fb76c7bb18b8a0edb6f3a0c37c55d7afc18',
    '_closedsocket.__bool__':
        'd0aa293b990ef61faebdf80e8b6c77c8dfc20659c4f21185b8f572f95ffa9b8c',
    '_wrefsocket':
        '5e71adb2469bd73f9df7234f1be6179a3b7579ccdcdc3caf3c69a675c4bb2770',
}

POOLS = {
    'Pool.full':
        '8e466d8609f6f599ccfd993c0a0575f076101d4ea22a5c4983c51d89d00acd33',
    'Pool.free_count':
        'b3dcb00439ef869a405f37ab1bbcc26f9fa8a7fb7d02d0bd7b6b3e9a4d10c760',
    'Group.__len__':
        '704cac6fc1b652c01e6e8906ede4d22715a9514983f14ffadb99e19c7516ed99',
    'Group.spawn':
        'cb9b9ecddc510da939485b34633e9b2d4fb9c0fe27c9540b7cfb65101a01aee4',
    'Pool.start':
        '1f530c65b938dc9fe6e034856cbda2bc40d076e0f329ad1e57bfa85e012d3e34',
    'Pool.add':
        '95b1f7869bed32607695a635d5a2586732d1b6c9eb461678c437086c27ffbe2c',
    'Group.add':
        '6bc108730a81c8921e0f7cfcc65f5bf2075e9c9acd636ab64b87f4ecadea36a1',
}

GREENLETS = {
    'Config.track_greenlet_tree':
        '3926fde0715d710ab1b6845a17653ad9ecb27f476f100630ad041aa59e80765a',
    'Setting.get':
        '67f69c31adbc9645d622dfb4d1cb1ca884168b7fea72eeae595abb8ac8e7889a',
    'spawn_raw':
        'ec6e5f26bdbb9ad9a7cee5f489b7e8e9b412c0bceda4abd417c1cfbb249df577',
}
