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

# What the functions of gevent have that a native step stands for. It is the same in gevent 25.9.1
# to 26.9.0.

#: The defaults of arguments, where there are any. A text is the path of an object.
DEFAULTS = {
    'socket.__init__': (-1, -1, -1, None),
    'socket._real_close': ('_socket:socket',),
    'SocketMixin._drop_events_and_close': (True, 'gevent._socketcommon:cancel_wait_ex'),
    'Pool.add': (True, None),
}

#: What the modules have under the global names that are read there, as paths; all others are
#: builtins. Where that is the name's own path, the functions of what is there are compared.
GLOBALS = {
    'gevent.server': {
        'GeventSocket': 'gevent._socket3:socket',
        '_closing_socket': 'gevent.server:_closing_socket',
    },
    'gevent._socket3': {
        'AddressFamily': 'socket:AF_INET.__class__',
        'SOCK_STREAM': 'socket:SOCK_STREAM',
        '_closedsocket': 'gevent._socket3:_closedsocket',
        '_socket': '_socket',
        'get_hub': 'gevent._hub_local:get_hub_noargs',
    },
    'gevent._socketcommon': {},
    'gevent.pool': {
        'Group': 'gevent.pool:Group',
        'PoolFull': 'gevent.pool:PoolFull',
    },
    'gevent._config': {},
    'gevent.hub': {
        'GEVENT_CONFIG': 'gevent:config',
        'RawGreenlet': 'greenlet:greenlet',
        'TrackedRawGreenlet': 'gevent._greenlet_primitives:TrackedRawGreenlet',
        '_functools_partial': 'functools:partial',
        '_get_hub_noargs': 'gevent._hub_local:get_hub_noargs',
    },
    'socket': {
        'AddressFamily': 'socket:AF_INET.__class__',
        'SocketKind': 'socket:SOCK_STREAM.__class__',
        '_intenum_converter': 'socket:_intenum_converter',
    },
}

#: What variables of functions around it have, in the order of co_freevars: paths.
CELLS = {
    'socket.__init__': ('gevent._socket3:socket',),
    'Config.track_greenlet_tree': ('gevent:config.settings.track_greenlet_tree.name',),
    'stdlib.family': ('stdlib',),
    'stdlib.type': ('stdlib',),
}

#: What digests.digest() tells of their code, by CPython. Where releases differ, there are several,
#: with spaces between: the step has to be right for each.
CODE = {
    '3.10': {
        'StreamServer.do_read': '3167fc942e41f1ee06e3b3d3de4b6e8d',
        'socket.__init__': '055469a6336c4afdef7fa2dc4465cf89',
        'SocketMixin.__init__': '73c8fd7fc723ae0ec9eaf912f9c8c097',
        'stdlib.family': 'c7902ec4e0e564c5afa706830092e928',
        'stdlib.type': '44ddbfa0d584986242add675c91ee2c3',
        '_intenum_converter': '732038b50def0b667ebb4b56659d820c',
        'StreamServer.do_close': '6356cc2e03d4e4879b490159934434b9',
        'socket.close': '706e2ebd64390f70ff10a097e58c55b9',
        'socket._real_close': 'd8bd2fc77062d7a0dcbc668794028186',
        'socket._detach_socket': '04a10dada36319530610dc61a321df6f',
        'SocketMixin._drop_events_and_close': '9d5b3c7ccf2b03444d30e0b21f37e2df',
        'socket._drop_ref_on_close': '863f7bdb1d4e18addca9b8a056d4a1d7',
        '_closedsocket.__init__': 'dc892fe8ba491a7245eb15ea95ee2272',
        '_closedsocket.__bool__': 'b7c5f440890897319b58fcefbc52020c',
        'Pool.full': 'caabb8c5fc1e6193268e0b084c719622',
        'Pool.free_count': '14c409da99b06c729bd0c68ac4ffc0e1',
        'Group.__len__': '75768c211c709c57a62c7a44339a1850',
        'Group.spawn': '37c0d5998ec222b97a58f30b1eded060',
        'Pool.start': 'af0d81f4e88b7e53a845da2e9bfa23cc',
        'Pool.add': 'bd1e6153e1cfe0cbee8d507f667721f0',
        'Group.add': '96ff63a6805f69ca501f844343166b83',
        'Config.track_greenlet_tree': '5d6d5c891c161516b73a0ae0a4e96ee1',
        'Setting.get': '6798434766d2212cd46687d086c3a647',
        'spawn_raw': 'd9da4a4b2d38c9803217669c9e2e14d3',
        'StreamServer.wrap_socket_and_handle': '001004cabf87ac99c815b87dc300e788',
    },
    '3.11': {
        'StreamServer.do_read': '9cb87cded5abc5236d94efa27a4f5c04',
        'socket.__init__': '87418f63ab6e336b06cbe53b0a399aff',
        'SocketMixin.__init__': '147dbf79af2b20abe50736321acd61cf',
        'stdlib.family': 'f97a2338e186e9ed931e1116ff614f35',
        'stdlib.type': '9e463a68bd671d090dbb7eaeb69b5c62',
        '_intenum_converter': 'f5416db95e60f36e1d92ec3a5865450f',
        'StreamServer.do_close': 'bce6de737e70f10d97dd22ed1f1fb1e1',
        'socket.close': '11861a912def3a2949a1531d6cd3a766',
        'socket._real_close': '2977ad913d2564c12570e91c72b3649a',
        'socket._detach_socket': 'cd04408b5c61b5d168fabf09688b0e72',
        'SocketMixin._drop_events_and_close': '70d2f424a8191666f11e35cb13c48047',
        'socket._drop_ref_on_close': 'd618e02a65bbae6ea94073b13d95a473',
        '_closedsocket.__init__': '796aa0a1258b66043d81318d1b5358bd',
        '_closedsocket.__bool__': '88c8ace069a09c3d7850fd018d1cd8ff',
        'Pool.full': '5f1b7975764eea6786a15db9864f369f',
        'Pool.free_count': '987f645f82c48dfda89354043e21de14',
        'Group.__len__': 'a9b1dc2062581e30309515c3d8d4a23a',
        'Group.spawn': 'f3ac8b676582074e147906dc8be0ab8a',
        'Pool.start': 'c0ece4454cbfe9d625620676ee855c1d',
        'Pool.add': 'b70cf8e6c679e793946105a507d9432d',
        'Group.add': 'ce4a194a42c6277b0c10eb00890d19fb',
        'Config.track_greenlet_tree': '7c9f693ba7b1a6c3ca25aa1eabe83066',
        'Setting.get': '3049f21c5925eadf65ab1ed128946283',
        'spawn_raw': '68c043a61f715e8b7f853ec419772467',
        'StreamServer.wrap_socket_and_handle': '34256e5edb9811e9f717da5ee8eaec52',
    },
    '3.12': {
        'StreamServer.do_read': 'df627fcdf084c338c797645a051f8035',
        'socket.__init__': '2587ea1408840282108f0aa2707ae2ef',
        'SocketMixin.__init__': 'f972fa8d10679479026923d6a70cc626',
        'stdlib.family': '822a215dc182601bffa0b74b2156d16b',
        'stdlib.type': '7445ab44580207bcf0a3b9d93ce4b20d',
        '_intenum_converter': 'ec3f86c9b89539ad30263ac395b2bc0a',
        'StreamServer.do_close': 'ab2e74185010f0b549e4b62930ce5b8c',
        'socket.close': '8f2c2fc8a3d529c4e3087a4b652267d8',
        'socket._real_close': 'ee028b2b087644cd6bed5b9afc466594',
        'socket._detach_socket': '58fe42a77bb5750b4d1bbc27369dfcc7',
        'SocketMixin._drop_events_and_close': 'c27b65a62aea1fa3b77eefb8561456a0',
        'socket._drop_ref_on_close': 'f04d4d0c55ce73022b8ce724030610be',
        '_closedsocket.__init__': '18fe075078ae67f0b5d62442f123b0ed',
        '_closedsocket.__bool__': 'bccb9345f486d1d4c9cc745155b7e73f',
        'Pool.full': '7781d7b15a179e0fa6bac693d8656aa3',
        'Pool.free_count': 'a0701dea90a2b4d6e51d0ba97bebdad3',
        'Group.__len__': 'e12eb0afa6c915f67bb3f0b5e79c0082',
        'Group.spawn': 'ae3c8a2db3e83d9a16c6086c23ad03cd',
        'Pool.start': 'ff32d7adce8e0e12d3d0feea60a7a714',
        'Pool.add': '2254e744217b9d3e627749cf64000473',
        'Group.add': '47427d73831a9f74aaa8132acf8b2449',
        'Config.track_greenlet_tree': 'ec8d5b5b626693266efb277bc4760c7e',
        'Setting.get': '5b6112b432005f8eaffd24d179e38695',
        'spawn_raw': '5c51f4701c2cf0b614343513c79bcfae',
        'StreamServer.wrap_socket_and_handle': '63996d027e2451f3d4d3d35f419aa2bb',
    },
    '3.13': {
        'StreamServer.do_read': '38ca7b0c9d4358bded97ce349a5fdc3d',
        'socket.__init__': '4352c98e2ffc02eb659fd4ced972caa0',
        'SocketMixin.__init__': 'f972fa8d10679479026923d6a70cc626',
        'stdlib.family': '822a215dc182601bffa0b74b2156d16b',
        'stdlib.type': '7445ab44580207bcf0a3b9d93ce4b20d',
        '_intenum_converter': 'eeb0a7a2ecba5e681cb9392580318d02',
        'StreamServer.do_close': 'ab2e74185010f0b549e4b62930ce5b8c',
        'socket.close': 'f20d65c14f18407703427e7c1fdb01b1',
        'socket._real_close': '6d2db4ff77999f175d14fbf07f3057a5',
        'socket._detach_socket': '78899050643b3aed1ffc68bf70b40af5',
        'SocketMixin._drop_events_and_close': '582b4c99ce9e5a214b6c1f8f1e836de1',
        'socket._drop_ref_on_close': '5db02993332dad2fd6933d39a01de37f',
        '_closedsocket.__init__': '17b478c742da3ac285746bb148eb667e',
        '_closedsocket.__bool__': 'bccb9345f486d1d4c9cc745155b7e73f',
        'Pool.full': '86398c75c76a0605a716bfae90cf413e',
        'Pool.free_count': 'a0701dea90a2b4d6e51d0ba97bebdad3',
        'Group.__len__': 'e12eb0afa6c915f67bb3f0b5e79c0082',
        'Group.spawn': '8eb20163f869a704d2259e59837a28d1',
        'Pool.start': '93fa9ab1c4c33d073a67d03abb7c9bf7',
        'Pool.add': '4a7f2d5591265b1b59fb228d1f3be527',
        'Group.add': '5bb3ca0a33a364cbcc6510bb3be29e66',
        'Config.track_greenlet_tree': 'ec8d5b5b626693266efb277bc4760c7e',
        'Setting.get': '5b6112b432005f8eaffd24d179e38695',
        'spawn_raw': 'f14b1914efbe91f5583f628aefe59e12',
        'StreamServer.wrap_socket_and_handle': '82713eb0bc90e309ba73f104dc274529',
    },
    '3.14': {
        'StreamServer.do_read': 'eb4b9ecf7128b99ab0c88be14237d4ec',
        'socket.__init__': '3b94c2a232ae7ce68bbd21a86bc349b8',
        'SocketMixin.__init__': '72b19a0ac0f3c48ec1e2c96e08ff7344',
        'stdlib.family': '31652cf5e67b9fe4987df840f2a08903',
        'stdlib.type': '5e64ccb0bc91da218dba7df58cd086fe',
        '_intenum_converter': '7f07e8950aab491b2b6f3ea4eddbe038',
        'StreamServer.do_close': '911a6ff87e4a73ae7f0b5a3066e2e7a0',
        'socket.close': '60753ac4e51b2d17dd95309fdcf1f7dd',
        'socket._real_close': '84a6cb6a8bfe9090d69098349ac4b57f',
        'socket._detach_socket': 'c6ad952de73f7cea23c16d33c63cecd6',
        'SocketMixin._drop_events_and_close': '33c315ab19a448216f925482f32cdda1',
        'socket._drop_ref_on_close': '263d0ae4d8ac9d007c9cb3224c1cd3e5',
        '_closedsocket.__init__': 'd223c23736044d73a28d6975fe9a4fef',
        '_closedsocket.__bool__': '8c9a1a3fa802f6bd4fe07c77b8ccc1c6',
        'Pool.full': '00131dabbee80baf19a60bea3364d4b3',
        'Pool.free_count': '4ded428c4bbd6d9e7cbeafb6f1e35869',
        'Group.__len__': '26454eef6707ab44b2f7d16e7ce5570d',
        'Group.spawn': '3dbfc5816c02a855a6c8037230e610d8',
        'Pool.start': 'f8957f755734394687230914d469d47e',
        'Pool.add': 'bf03feb486f584b38d1cb3cb1418cac5',
        'Group.add': '9d05ac3a9a30ae161cd7a2cb37e4a130',
        'Config.track_greenlet_tree': '765a78611b6c7b829e2befef94631eff',
        'Setting.get': '77d894fc5bf5e1e83bf6b26cde590431',
        'spawn_raw': '1db4ea26a347122cc9b813f3ca89ce5f',
        'StreamServer.wrap_socket_and_handle': '78278c1582208abbe0612c2a6468d0b7',
    },
    '3.15': {
        'StreamServer.do_read': '90491a536724a970dec05a53fbf08b2c',
        'socket.__init__': '7286da138311953cd48ea83bec9d47a3',
        'SocketMixin.__init__': '536aaddc98ba171fd71429865e1d4149',
        'stdlib.family': '31652cf5e67b9fe4987df840f2a08903',
        'stdlib.type': '5e64ccb0bc91da218dba7df58cd086fe',
        '_intenum_converter': '7f07e8950aab491b2b6f3ea4eddbe038',
        'StreamServer.do_close': '7e67c9d27b492de3b7913abe8c5c0335',
        'socket.close': '20b894fb97f8433ff8eb74dcb8cf3140',
        'socket._real_close': 'df44910e8eb01d43468cf6a9f970ff91',
        'socket._detach_socket': '5a19606d70157a999431be9569b78ae5',
        'SocketMixin._drop_events_and_close': '1d1a2fb0727e3d5e494ed81a7138d4ad',
        'socket._drop_ref_on_close': '0bb891d36e8de89c2371be1f2f200070',
        '_closedsocket.__init__': '9e696bd686e70c848b01d35305fe0b05',
        '_closedsocket.__bool__': '0ceba46be35b1e9be43f4fe52c414ef3',
        'Pool.full': '00131dabbee80baf19a60bea3364d4b3',
        'Pool.free_count': '4ded428c4bbd6d9e7cbeafb6f1e35869',
        'Group.__len__': '26454eef6707ab44b2f7d16e7ce5570d',
        'Group.spawn': '3dbfc5816c02a855a6c8037230e610d8',
        'Pool.start': '0d6e3278ac365bae21a0c6121f3db198',
        'Pool.add': 'b038b1ea0ee993b2084ccf29589c3b90',
        'Group.add': 'b0b1a50fa6a050926c10e6ba5e8e7496',
        'Config.track_greenlet_tree': '765a78611b6c7b829e2befef94631eff',
        'Setting.get': '77d894fc5bf5e1e83bf6b26cde590431',
        'spawn_raw': '1db4ea26a347122cc9b813f3ca89ce5f',
        'StreamServer.wrap_socket_and_handle': '671ab19d79c01099fe63350ad1a318e4',
    },
}
