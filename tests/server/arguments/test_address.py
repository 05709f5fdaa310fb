"""parse_address and its two helpers: every form, every refusal, and a fuzz against gevent."""
import collections
import inspect
import socket

import pytest
from conftest import STOCK
from hypothesis import given, settings, strategies as st

INET, INET6 = socket.AF_INET, socket.AF_INET6

#: address -> what both parse_address and _parse_address give
FORMS = [
    (('127.0.0.1', 80), INET, ('127.0.0.1', 80)),
    (('localhost', 'http'), INET, ('localhost', 'http')),
    (('*', 80), INET, ('*', 80)),
    (('::1', 80), INET6, ('::1', 80)),
    (('', 80), INET6, ('', 80)),
    (('[::1]', 80), INET6, ('[::1]', 80)),
    ('127.0.0.1:80', INET, ('127.0.0.1', 80)),
    (':80', INET, ('', 80)),
    ('*:80', INET, ('', 80)),
    ('**:80', INET, ('**', 80)),
    ('[::1]:80', INET6, ('::1', 80)),
    ('[::]:80', INET6, ('::', 80)),
    ('[]:80', INET6, ('', 80)),
    ('[*]:80', INET6, ('', 80)),
    ('[host]:80', INET6, ('host', 80)),
    ('[[x]]:80', INET6, ('[x]', 80)),
    ('::1:80', INET, ('::1', 80)),
    ('a:b:80', INET, ('a:b', 80)),
    ('[a:80', INET, ('[a', 80)),
    ('a]:80', INET, ('a]', 80)),
    ('[:80', INET, ('[', 80)),
    (']:80', INET, (']', 80)),
    ('a\0b:80', INET, ('a\0b', 80)),
    ('\N{SNOWMAN}:80', INET, ('\N{SNOWMAN}', 80)),
    ('\udc80:80', INET, ('\udc80', 80)),
    ('host: 80 ', INET, ('host', 80)),
    ('host:+80', INET, ('host', 80)),
    ('host:-1', INET, ('host', -1)),
    ('host:8_0', INET, ('host', 80)),
    ('host:\N{ARABIC-INDIC DIGIT THREE}', INET, ('host', 3)),
    ('host:99999999999999999999', INET, ('host', 99999999999999999999)),
    ('80', INET6, ('', 80)),
    (' 80\n', INET6, ('', 80)),
    ('-1', INET6, ('', -1)),
    ('0', INET6, ('', 0)),
    ('65536', INET6, ('', 65536)),
    (80, INET6, ('', 80)),
    (0, INET6, ('', 0)),
    (-5, INET6, ('', -5)),
    (1 << 70, INET6, ('', 1 << 70)),
    (False, INET6, ('', 0)),
    (True, INET6, ('', 1)),
]

#: tuples are judged by their first item alone and returned as they are
TUPLES = [
    (('',), INET6),
    (('a',), INET),
    (('a:',), INET6),
    (('a', 1, 2, 3, 4), INET),
    (('fe80::1', 1, 0, 2), INET6),
    ((None,), INET6),
    ((None, None), INET6),
    ((0, 0), INET6),
    ((0.0,), INET6),
    ((b'', 80), INET6),
    (((), 80), INET6),
    ((['a'], 80), INET),
    (([':'], 80), INET6),
    (({'a': ':'}, 80), INET),
    (({':': 'a'}, 80), INET6),
    ((('a', ':'), 80), INET6),
    ((range(1, 3), 80), INET),
]

#: text that names no port, and what int() says of it
BAD_TEXT = [
    ('', "''"),
    (' ', "' '"),
    ('host', "'host'"),
    ('*', "'*'"),
    ('1.0', "'1.0'"),
    ('0x10', "'0x10'"),
    ('1__0', "'1__0'"),
    ('8 0', "'8 0'"),
    ('\0', r"'\x00'"),
    ('80\0', r"'80\x00'"),
    ('\ud800', r"'\ud800'"),
    ('caf\xe9', "'caf\xe9'"),
    (':', "''"),
    ('host:', "''"),
    ('host:http', "'http'"),
    ('host:1.5', "'1.5'"),
    ('[::1]', "'1]'"),
    ('[::1]80', "'1]80'"),
    ('[::]', "']'"),
]

#: anything that is neither tuple, text nor int, and the name of its type in the message
NOT_AN_ADDRESS = [
    (None, 'NoneType'),
    (b'', 'bytes'),
    (b'80', 'bytes'),
    (b'host:80', 'bytes'),
    (bytearray(b'80'), 'bytearray'),
    (80.0, 'float'),
    (80j, 'complex'),
    ([], 'list'),
    (['127.0.0.1', 80], 'list'),
    ({}, 'dict'),
    ({80}, 'set'),
    (range(2), 'range'),
    (Ellipsis, 'ellipsis'),
    (int, 'type'),
]


@pytest.fixture(params=['parse_address', '_parse_address'])
def parse(impl, request):
    """The public function and the inner one, which differ only in their ValueErrors."""
    return getattr(impl.module, request.param)


def family_of(result):
    """The family of *result*; the family is a plain int and the result a plain pair."""
    assert type(result) is tuple and len(result) == 2
    assert type(result[0]) is int
    return result[0]


@pytest.mark.parametrize('address, family, expected', FORMS, ids=repr)
def test_every_form(parse, address, family, expected):
    """Each documented or merely accepted form gives the family and a (host, port) pair."""
    result = parse(address)
    assert family_of(result) == family
    assert result[1] == expected
    assert type(result[1]) is tuple
    assert [type(item) for item in result[1]] == [type(item) for item in expected]


@pytest.mark.parametrize('address, family', TUPLES, ids=repr)
def test_a_tuple_is_returned_itself(parse, address, family):
    """Only the first item is looked at: false or containing ':' is IPv6, else IPv4."""
    result = parse(address)
    assert family_of(result) == family
    assert result[1] is address


def test_namedtuple_is_a_tuple(parse):
    """A subclass of tuple is kept with its type."""
    Address = collections.namedtuple('Address', 'host port')
    address = Address('::', 1)
    result = parse(address)
    assert result[0] == INET6 and result[1] is address


@pytest.mark.parametrize('text, shown', BAD_TEXT, ids=repr)
def test_bad_port_in_inner_function(impl, text, shown):
    """_parse_address lets the ValueError of int() through."""
    with pytest.raises(ValueError) as info:
        impl.module._parse_address(text)
    assert type(info.value) is ValueError
    assert str(info.value) == 'invalid literal for int() with base 10: ' + shown
    assert info.value.__context__ is None


@pytest.mark.parametrize('text, shown', BAD_TEXT, ids=repr)
def test_bad_port(impl, text, shown):
    """parse_address names the whole address and keeps the first error as the context."""
    with pytest.raises(ValueError) as info:
        impl.module.parse_address(text)
    error, first = info.value, info.value.__context__
    reason = 'invalid literal for int() with base 10: ' + shown
    assert type(error) is ValueError
    assert error.args == ('Failed to parse address %r: %s' % (text, reason),)
    assert type(first) is ValueError and first.args == (reason,)
    assert first.__context__ is None
    assert error.__cause__ is None and error.__suppress_context__ is False


def test_text_with_too_many_digits(impl):
    """The interpreter's limit on the length of a number is a ValueError like any other."""
    for text in ('9' * 5000, 'host:' + '9' * 5000):
        with pytest.raises(ValueError) as info:
            impl.module.parse_address(text)
        assert str(info.value) == 'Failed to parse address %r: %s' % (
            text, info.value.__context__)
        assert str(info.value.__context__).startswith('Exceeds the limit (4300')


@pytest.mark.parametrize('address, kind', NOT_AN_ADDRESS, ids=repr)
def test_wrong_type(parse, address, kind):
    """TypeError, not rephrased by parse_address."""
    with pytest.raises(TypeError) as info:
        parse(address)
    assert info.value.args == ("Expected tuple or string, got <class '%s'>" % kind,)
    assert info.value.__context__ is None


def test_wrong_type_of_a_user_class(parse):
    """The message shows the real type, found by type() and not by __class__."""
    class Meta(type):
        def __str__(cls):
            return 'the-meta'

    class Thing(metaclass=Meta):
        __class__ = float
    with pytest.raises(TypeError) as info:
        parse(Thing())
    assert str(info.value) == 'Expected tuple or string, got the-meta'
    Meta.__str__ = lambda cls: 1 // 0
    with pytest.raises(ZeroDivisionError) as info:
        parse(Thing())
    assert info.value.__context__ is None


@pytest.mark.parametrize('address, kind, start', [
    ((), IndexError, 'tuple index out of range'),
    ((5, 80), TypeError, "argument of type 'int' is not "),
    ((0.5, 80), TypeError, "argument of type 'float' is not "),
    ((object, 80), TypeError, "argument of type 'type' is not "),
    ((b'host', 80), TypeError, "a bytes-like object is required, not 'str'"),
    ((b':', 80), TypeError, "a bytes-like object is required, not 'str'"),
    ((range, 80), TypeError, "argument of type 'type' is not "),
], ids=repr)
def test_tuples_that_cannot_be_judged(parse, address, kind, start):
    """Whatever bool() or `in` raises for the first item gets out unchanged."""
    with pytest.raises(kind) as info:
        parse(address)
    assert type(info.value) is kind and str(info.value).startswith(start)


def test_int_subclasses(parse):
    """int() is called on the port, so a subclass's own __int__ decides."""
    class Plain(int):
        pass

    class Liar(int):
        def __int__(self):
            return 7

    for port, expected in ((Plain(80), 80), (Liar(80), 7)):
        family, address = parse(port)
        assert family == INET6 and address == ('', expected)
        assert type(address[1]) is int


def test_int_subclass_that_raises(impl):
    """A ValueError of __int__ is rephrased like that of bad text; others are not."""
    class Port(int):
        error = None

        def __int__(self):
            raise self.error

        def __repr__(self):
            return '<port>'

    port = Port(80)
    port.error = UnicodeError('odd')
    with pytest.raises(ValueError) as info:
        impl.module.parse_address(port)
    assert type(info.value) is ValueError
    assert str(info.value) == 'Failed to parse address <port>: odd'
    assert info.value.__context__ is port.error
    for port.error in (KeyError('k'), KeyboardInterrupt(), TypeError('t')):
        with pytest.raises(type(port.error)) as info:
            impl.module.parse_address(port)
        assert info.value is port.error


def test_str_subclass_without_overrides(parse):
    """Host and port come out as plain str and int."""
    class Text(str):
        pass

    for text, family, expected in ((Text('*:80'), INET, ('', 80)),
                                   (Text('[::1]:80'), INET6, ('::1', 80)),
                                   (Text('host:80'), INET, ('host', 80)),
                                   (Text('80'), INET6, ('', 80))):
        result = parse(text)
        assert result == (family, expected)
        assert [type(item) for item in result[1]] == [str, int]


def test_str_subclass_with_its_own_contains(parse):
    """`':' in address` asks the subclass: one colon more or less is its business."""
    class Text(str):
        answer, asked = None, ()

        def __contains__(self, item):
            self.asked += (item,)
            return self.answer

    text = Text('80')
    text.answer = []
    assert parse(text) == (INET6, ('', 80)) and text.asked == (':',)
    text = Text('host:80')
    text.answer = [0]
    assert parse(text) == (INET, ('host', 80)) and text.asked == (':',)
    text = Text('80')
    text.answer = True
    with pytest.raises(ValueError, match=r'unpack \(expected 2, got 1\)'):
        parse(text)
    text = Text('host:80')
    text.answer = False
    with pytest.raises(ValueError, match="base 10: 'host:80'"):
        parse(text)


def test_str_subclass_with_its_own_rsplit(parse):
    """rsplit(':', 1) of the subclass is used; its result may be any iterable of two."""
    class Text(str):
        result, got = None, ()

        def rsplit(self, *args, **kwargs):
            self.got += ((args, kwargs),)
            return self.result

    text = Text('host:80')
    for result in (['[x]', '7'], ('[x]', 7), iter(['[x]', b'7']), {'[x]': 0, 7.9: 0}):
        text.got, text.result = (), result
        assert parse(text) == (INET6, ('x', 7))
        assert text.got == (((':', 1), {}),)


@pytest.mark.parametrize('result, start', [
    ([], 'not enough values to unpack (expected 2, got 0)'),
    (['x'], 'not enough values to unpack (expected 2, got 1)'),
    (['x', '7', ''], 'too many values to unpack (expected 2'),
    ('x:7', 'too many values to unpack (expected 2'),
])
def test_rsplit_with_the_wrong_number_of_items(impl, result, start):
    """The error of unpacking is a ValueError, thus rephrased by parse_address."""
    class Text(str):
        def rsplit(self, *args):
            return result

    with pytest.raises(ValueError) as info:
        impl.module._parse_address(Text('host:80'))
    assert str(info.value).startswith(start)
    with pytest.raises(ValueError) as info:
        impl.module.parse_address(Text('host:80'))
    assert str(info.value).startswith("Failed to parse address 'host:80': " + start)
    assert str(info.value.__context__).startswith(start)


def test_rsplit_that_gives_no_iterable(parse):
    """Unpacking a number is a TypeError and passes unchanged."""
    class Text(str):
        def rsplit(self, *args):
            return 5

    with pytest.raises(TypeError) as info:
        parse(Text('host:80'))
    assert str(info.value) == 'cannot unpack non-iterable int object'


@pytest.mark.parametrize('name', ['rsplit', 'startswith', 'endswith'])
def test_methods_that_cannot_be_called(parse, name):
    """The interpreter's own text."""
    class Text(str):
        def rsplit(self, *args):
            return Text('[host]'), '80'
    text = Text('[host]:80')
    setattr(Text, name, None)
    with pytest.raises(TypeError) as info:
        parse(text)
    assert str(info.value) == "'NoneType' object is not callable"


def test_host_of_another_kind(parse):
    """The host only needs startswith, endswith, slicing and ==, in that order."""
    log = []

    class Host:
        ends = True

        def startswith(self, text):
            log.append(('startswith', text))
            return 'yes'

        def endswith(self, text):
            log.append(('endswith', text))
            return self.ends

        def __getitem__(self, key):
            log.append(key)
            return '*'

        def __eq__(self, other):
            log.append(('==', other))
            return False

    class Text(str):
        def rsplit(self, *args):
            return host, '80'

    host = Host()
    assert parse(Text(':')) == (INET6, ('', 80))
    assert log == [('startswith', '['), ('endswith', ']'), slice(1, -1, None)]
    del log[:]
    Host.ends = 0
    family, address = parse(Text(':'))
    assert family == INET and address[0] is host and address[1] == 80
    assert log == [('startswith', '['), ('endswith', ']'), ('==', '*')]


def test_host_equal_to_the_star(parse):
    """Equality decides, so an odd host that claims to be '*' becomes ''."""
    class Host(str):
        def __eq__(self, other):
            return other == '*'

        __hash__ = None

    class Text(str):
        def rsplit(self, *args):
            return Host('a'), 80

    assert parse(Text(':')) == (INET, ('', 80))


def test_port_is_converted_last(impl):
    """A bad host is noticed before a bad port."""
    class Text(str):
        def rsplit(self, *args):
            return None, 'http'

    with pytest.raises(AttributeError) as info:
        impl.module.parse_address(Text(':'))
    assert str(info.value) == "'NoneType' object has no attribute 'startswith'"


def test_tuple_subclass_with_its_own_items(parse):
    """address[0] is looked up twice, through the subclass."""
    class Odd(tuple):
        asked = ()

        def __getitem__(self, index):
            self.asked += (index,)
            return ['a', 'b:'][len(self.asked) - 1]

    odd = Odd()
    result = parse(odd)
    assert result[0] == INET6 and result[1] is odd
    assert odd.asked == (0, 0)


def test_false_first_item_is_asked_only_once(parse):
    """A false host settles the family: `in` is not tried."""
    class Odd(tuple):
        asked = ()

        def __getitem__(self, index):
            self.asked += (index,)
            return 0

    odd = Odd(('a',))
    assert parse(odd)[0] == INET6 and odd.asked == (0,)


def test_first_item_with_hostile_methods(impl):
    """Errors of bool() and `in` get out; a ValueError is rephrased by parse_address."""
    class Host:
        def __init__(self, error, late):
            self.error, self.late = error, late

        def __bool__(self):
            if not self.late:
                raise self.error
            return True

        def __contains__(self, item):
            raise self.error

        def __repr__(self):
            return 'H'

    for late in (False, True):
        error = KeyError('k')
        with pytest.raises(KeyError) as info:
            impl.module.parse_address((Host(error, late), 1))
        assert info.value is error
        error = ValueError('v')
        with pytest.raises(ValueError) as info:
            impl.module.parse_address((Host(error, late), 1))
        assert str(info.value) == 'Failed to parse address (H, 1): v'
        assert info.value.__context__ is error


def test_objects_that_claim_a_type(parse):
    """isinstance() believes __class__, so a false tuple is indexed and a false int converted."""
    class LikeTuple:
        __class__ = tuple

        def __getitem__(self, index):
            return 'a:b' if index == 0 else 1 / 0

    class LikeInt:
        __class__ = int

        def __int__(self):
            return 12

    class LikeText:
        __class__ = str

        def __contains__(self, item):
            return True

        def rsplit(self, separator, count):
            return 'h', count

    class NumberLikeText(int):
        __class__ = str

        def __contains__(self, item):
            return True

    like = LikeTuple()
    result = parse(like)
    assert result[0] == INET6 and result[1] is like
    assert parse(LikeInt()) == (INET6, ('', 12))
    assert parse(LikeText()) == (INET, ('h', 1))
    assert parse(NumberLikeText(80)) == (INET6, ('', 80))


def test_message_that_cannot_be_made(impl):
    """An error of repr(address) or str(error) replaces the message, with the first as context."""
    class Text(str):
        def __repr__(self):
            return 1 // 0

    class Mute(ValueError):
        def __str__(self):
            raise LookupError('mute')

    class Port(int):
        def __int__(self):
            raise Mute

    with pytest.raises(ZeroDivisionError) as info:
        impl.module.parse_address(Text('host:x'))
    assert str(info.value.__context__) == "invalid literal for int() with base 10: 'x'"
    with pytest.raises(LookupError) as info:
        impl.module.parse_address(Port(1))
    assert type(info.value.__context__) is Mute


def test_error_inside_an_except_block(impl):
    """The chain reaches back to the exception that the caller was handling."""
    outer = RuntimeError('outer')
    try:
        try:
            raise outer
        except RuntimeError:
            impl.module.parse_address('x')
    except ValueError as ex:
        error = ex
    assert error.__context__.__context__ is outer


@pytest.mark.parametrize('host, family, expected', [
    ('', INET, ''),
    ('host', INET, 'host'),
    ('*', INET, '*'),
    ('[', INET, '['),
    (']', INET, ']'),
    ('[a', INET, '[a'),
    ('a]', INET, 'a]'),
    (' [a]', INET, ' [a]'),
    ('[]', INET6, ''),
    ('[::1]', INET6, '::1'),
    ('[[a]]', INET6, '[a]'),
    ('[*]', INET6, '*'),
    ('[\N{SNOWMAN}]', INET6, '\N{SNOWMAN}'),
])
def test_extract_family(impl, host, family, expected):
    """Brackets on both sides mean IPv6 and are taken off."""
    result = impl.module._extract_family(host)
    assert family_of(result) == family and result[1] == expected
    if family == INET:
        assert result[1] is host


@pytest.mark.parametrize('host, kind, message', [
    (None, AttributeError, "'NoneType' object has no attribute 'startswith'"),
    (5, AttributeError, "'int' object has no attribute 'startswith'"),
    (b'[a]', TypeError, 'startswith first arg must be bytes or a tuple of bytes, not str'),
])
def test_extract_family_of_something_else(impl, host, kind, message):
    """The host is used as text without being checked first."""
    with pytest.raises(kind) as info:
        impl.module._extract_family(host)
    assert str(info.value) == message


@pytest.mark.parametrize('name, parameter', [
    ('parse_address', 'address'), ('_parse_address', 'address'), ('_extract_family', 'host')])
def test_calling_convention(impl, name, parameter):
    """One argument, by position or by name; anything else is a TypeError."""
    function = getattr(impl.module, name)
    assert function.__name__ == name
    assert str(inspect.signature(function)) == '(%s)' % parameter
    assert function('[9]:9') == function(**{parameter: '[9]:9'})
    for args, kwargs in (((), {}), (('1', '2'), {}), ((), {'x': '1'}),
                         (('1',), {parameter: '1'}), (('1',), {'x': '1'})):
        with pytest.raises(TypeError):
            function(*args, **kwargs)


def outcome(function, argument):
    """What a call gives, types included, in a form that compares by value."""
    try:
        family, address = function(argument)
    except Exception as ex:
        first = ex.__context__
        return (type(ex), str(ex), type(first), str(first), ex.__cause__)
    if address is argument:
        return family, 'the argument itself'
    return family, type(family), address, type(address), [type(item) for item in address]


class Text(str):
    """A subclass of str for the fuzz."""


class Port(int):
    """A subclass of int for the fuzz."""


class Pair(tuple):
    """A subclass of tuple for the fuzz."""


ADDRESS_LIKE = st.text(alphabet='[]:*. -+_0129aZ\0\xe9\u0663\U0001f40d', max_size=12)
ATOMS = (st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8)
         | st.text(max_size=8) | ADDRESS_LIKE | st.complex_numbers())
THINGS = st.recursive(ATOMS, lambda inner: (
    st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text(max_size=2), inner, max_size=2)), max_leaves=6)
FUZZED = {
    'text': st.text() | ADDRESS_LIKE,
    'host and port': st.tuples(ADDRESS_LIKE, st.integers(-9, 99999)).map('%s:%d'.__mod__),
    'str subclass': ADDRESS_LIKE.map(Text),
    'integers': st.integers() | st.booleans() | st.integers().map(Port),
    'pairs': st.tuples(ADDRESS_LIKE | st.text(), st.integers()),
    'tuples': st.lists(THINGS, max_size=4).map(tuple),
    'tuple subclass': st.lists(ADDRESS_LIKE | ATOMS, max_size=3).map(Pair),
    'bytes': st.binary() | st.binary().map(bytearray),
    'objects': THINGS,
}


@pytest.mark.parametrize('kind', FUZZED)
@pytest.mark.parametrize('name', ['parse_address', '_parse_address', '_extract_family'])
def test_fuzz(name, kind):
    """For any argument at all, the result or the error is that of gevent's own function."""
    import gevent_cbase.baseserver
    theirs, ours = getattr(STOCK, name), getattr(gevent_cbase.baseserver, name)
    assert ours is not theirs

    @settings(deadline=None, max_examples=200)
    @given(FUZZED[kind])
    def compare(argument):
        expected = outcome(theirs, argument)
        assert outcome(ours, argument) == expected
    compare()
