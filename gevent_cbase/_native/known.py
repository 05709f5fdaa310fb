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

# Digests of the code of each function in gevent.baseserver, by CPython version: install() leaves
# alone what a program has put in its place. They are the same in gevent 25.9.1 to 26.9.0.
BASESERVER = {
    '_handle_and_close_when_done': {
        '3.10': 'fedefd209c018f42',
        '3.11': '868e315e23935319',
        '3.12': '87f8def107b722d7',
        '3.13': 'e9c1dd769f609e0f',
    },
    'BaseServer.__init__': {
        '3.10': 'b243e787cfce4db5',
        '3.11': '5e616be6f6254d8b',
        '3.12': '862a1a171c9fb5cd',
        '3.13': '5df78690e6a7179c',
    },
    'BaseServer.__enter__': {
        '3.10': '0816ae5e9e5f917d',
        '3.11': 'c30959424f500324',
        '3.12': 'bd430701408407e4',
        '3.13': '3d3b06bebefb87f9',
    },
    'BaseServer.__exit__': {
        '3.10': '4d403606b5a36d98',
        '3.11': 'ef7004d0ce9d77e8',
        '3.12': '21ec37985dd29650',
        '3.13': '95248a95cf7fa607',
    },
    'BaseServer.set_listener': {
        '3.10': '54983bd5e49d6a0a',
        '3.11': '2889e3488ebcac27',
        '3.12': '40aab66beddd817c',
        '3.13': '37d691e36e84dca6',
    },
    'BaseServer.set_spawn': {
        '3.10': '30d029606d1df9c0',
        '3.11': '4ededf4bb8f2ecb8',
        '3.12': '4a0e986d5384be29',
        '3.13': '9cb24ff64b404a62',
    },
    'BaseServer.set_handle': {
        '3.10': 'd48d70a077784f8e',
        '3.11': 'b5598c0faa16e8c0',
        '3.12': '7e14f0a3ca35a451',
        '3.13': 'e68668643927b2fc',
    },
    'BaseServer._start_accepting_if_started': {
        '3.10': '0c183c8b04d249cf',
        '3.11': 'b11a38b927983af9',
        '3.12': 'cebb38741eb7156e',
        '3.13': 'f43c4e9f14589532',
    },
    'BaseServer.start_accepting': {
        '3.10': '9690c6e921922dba',
        '3.11': '41d9d67f8b105a3e',
        '3.12': 'b393a1e268914b6d',
        '3.13': 'f9a139a4ea08ac41',
    },
    'BaseServer.stop_accepting': {
        '3.10': '2cac448758fd8474',
        '3.11': '298f4a0de3ce04f8',
        '3.12': '88b304d457f000db',
        '3.13': '01f4c0f0c45ae46a',
    },
    'BaseServer.do_handle': {
        '3.10': '1abb7cea15b6abc7',
        '3.11': '78b6c6eb9b3eb4b4',
        '3.12': '9edfe7901d029f35',
        '3.13': '1d87091813d34890',
    },
    'BaseServer.do_close': {
        '3.10': '3af6954cb74e6e34',
        '3.11': 'd3a1312888fb354a',
        '3.12': '10414acc34511f47',
        '3.13': 'ef5f747296e0b998',
    },
    'BaseServer.do_read': {
        '3.10': 'c5d52c43faef575f',
        '3.11': '837d77026dd31e62',
        '3.12': '88af0cb15835ab85',
        '3.13': '70646f97a0331a86',
    },
    'BaseServer._do_read': {
        '3.10': '6239d7ce8ac718e0',
        '3.11': '737f4719acba9861',
        '3.12': 'ab68771c94936f8d',
        '3.13': '2b592d31c60732be',
    },
    'BaseServer.full': {
        '3.10': '8ef6e69baed806a3',
        '3.11': '40c5918149b11bf2',
        '3.12': '2d89ecb4872cf074',
        '3.13': 'db2f83425321deb8',
    },
    'BaseServer.__repr__': {
        '3.10': '8d084f158c78870b',
        '3.11': '23dc236fbb2d1aa5',
        '3.12': 'be19ffc56cbdd9c3',
        '3.13': 'b5ec5514bcf0c827',
    },
    'BaseServer.__str__': {
        '3.10': 'c154617364cf170f',
        '3.11': '976b819329d37739',
        '3.12': 'e8cda554e0474f19',
        '3.13': '9c210ab7c53e20dc',
    },
    'BaseServer._formatinfo': {
        '3.10': 'eed8c13bb333236c',
        '3.11': 'af58d5e900f1132a',
        '3.12': 'e7217927551a4afe',
        '3.13': 'e6d50f8b995cbccf',
    },
    'BaseServer.server_host': {
        '3.10': '583e2c028adafade de43f8ac0ef4ff6e',
        '3.11': '29081e02e2aace28 abf70357ee3b2106',
        '3.12': '09c8a6112669fe55 1ab8736a37674857',
        '3.13': 'd921f7e3d759b746 11e3dd6080eeca18',
    },
    'BaseServer.server_port': {
        '3.10': '8aa596c0d95dc16f abfb68ed9a4ead40',
        '3.11': 'a4a3ff9f44484136 859315c16f12efe4',
        '3.12': '54d0f3adc6572d69 bd96dca26a7413a1',
        '3.13': 'f6e02529cc6788c5 3c102ff8f98c275b',
    },
    'BaseServer.init_socket': {
        '3.10': 'c63f91ff77283a85 9f0c630869cbc65e',
        '3.11': '15db62c454fcd007 230f60ff973ca84a',
        '3.12': 'd8ffcf14aff54d13 b2c44c0197df78c1',
        '3.13': '48cbf790ec7d1b53 3ffad9208bd98298',
    },
    'BaseServer.started': {
        '3.10': 'b82e232f7531cc85',
        '3.11': '19e44e55ac2ca5b1',
        '3.12': 'd6e8bb12414f9480',
        '3.13': '8a6d185e54608aff',
    },
    'BaseServer.start': {
        '3.10': '715556e0e701a1b6 d26c9303c9ca16d7',
        '3.11': 'f0327001f21a62cf eb9b07add7e77f78',
        '3.12': 'bb1d2013ee98c609 2eba4aea09506c32',
        '3.13': 'b20b8479bf62646e cc77d53d36fe1fb1',
    },
    'BaseServer.close': {
        '3.10': '8f41cf927e8b9a29 7eaaec65fa944276',
        '3.11': '9840a0e39ac8b96c 179a3b9c4e8e7170',
        '3.12': 'eedbd3df16e6f2fb 65d5a408fad2984f',
        '3.13': '350b1087dc98d1bf e949c49019effa02',
    },
    'BaseServer.closed': {
        '3.10': '5e1ea76d39812d04',
        '3.11': '944a6aac9feb520e',
        '3.12': '8d2700763fb6405d',
        '3.13': '3dda0ae183872481',
    },
    'BaseServer.stop': {
        '3.10': '5f84c3e847e72324 66e27901ce7287c8',
        '3.11': '9fd20ccd96ff3e35 dd2703e5d78b93de',
        '3.12': '0f0c39c867a3e721 5ba88d4dc23948b6',
        '3.13': 'bd06f13cd9146a84 75597ef2ad74145d',
    },
    'BaseServer.serve_forever': {
        '3.10': '10ae3d1d3709b9e5 eee863940575a7e5',
        '3.11': '04ed07f35f7f76d9 0c7236d21d2dadca',
        '3.12': '38708b7764adc711 274722627e34f18c',
        '3.13': 'bf578903ce717677 6535a6f176fb40f8',
    },
    'BaseServer.is_fatal_error': {
        '3.10': '0583a349129554cb',
        '3.11': '2760c9904f796f60',
        '3.12': '45e6b9ca85a93c8c',
        '3.13': '2879a0310b93a5f8',
    },
    '_extract_family': {
        '3.10': '983d811df0ba656b',
        '3.11': 'd5e1fa2cae764f07',
        '3.12': 'b0cc59c3b7faefa7',
        '3.13': '30a70a215ae363ab',
    },
    '_parse_address': {
        '3.10': '2b8518b45b1b11f2',
        '3.11': '77edc204822d4cc8',
        '3.12': '9a38860c746850f8',
        '3.13': '62ad23ba2b17e0a2',
    },
    'parse_address': {
        '3.10': '4879db41680df071',
        '3.11': '4e307699ba1f2622',
        '3.12': '7883bc7fd8267465',
        '3.13': 'feb2795f5fb4e11f',
    },
}
