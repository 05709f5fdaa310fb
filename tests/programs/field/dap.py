"""The client of a debugger: as much of the Debug Adapter Protocol as the tests need."""
import itertools
import json
import socket


class Client:
    """Talks to debugpy, which listens on this port of the loopback interface."""

    def __init__(self, port):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=60)
        self.file = self.socket.makefile('rb')
        self.numbers = itertools.count(1)
        self.events = []

    def close(self):
        self.send('disconnect', terminateDebuggee=False)
        self.file.close()
        self.socket.close()

    def send(self, command, **arguments):
        """Send a request, and return its number."""
        number = next(self.numbers)
        body = json.dumps({'seq': number, 'type': 'request', 'command': command,
                           'arguments': arguments}).encode()
        self.socket.sendall(b'Content-Length: %d\r\n\r\n' % len(body) + body)
        return number

    def read(self):
        """The next message."""
        length = 0
        while line := self.file.readline().strip():
            name, _, value = line.partition(b': ')
            if name == b'Content-Length':
                length = int(value)
        if not length:
            raise EOFError('the debugger has gone')
        return json.loads(self.file.read(length))

    def answer(self, number):
        """The body of the response to this request; events that come first are kept."""
        while True:
            message = self.read()
            if message['type'] == 'response' and message['request_seq'] == number:
                assert message['success'], message
                return message.get('body', {})
            if message['type'] == 'event':
                self.events.append(message)

    def ask(self, command, **arguments):
        return self.answer(self.send(command, **arguments))

    def event(self, *names):
        """The next event of these names."""
        while True:
            for event in self.events:
                if event['event'] in names:
                    self.events.remove(event)
                    return event
            message = self.read()
            if message['type'] == 'event':
                self.events.append(message)

    def attach(self, breakpoints):
        """*breakpoints*: a list of lines for each file."""
        self.ask('initialize', adapterID='tests', pathFormat='path')
        attached = self.send('attach', justMyCode=False)
        self.event('initialized')
        for path, lines in breakpoints.items():
            set_there = self.ask('setBreakpoints', source={'path': path},
                                 breakpoints=[{'line': line} for line in lines])
            assert all(one['verified'] for one in set_there['breakpoints']), set_there
        self.ask('setExceptionBreakpoints', filters=[])
        self.ask('configurationDone')
        self.answer(attached)

    def stops(self):
        """Yield the names of the functions on the stack, the innermost first, at each breakpoint,
        until the program ends.
        """
        while True:
            event = self.event('stopped', 'terminated', 'exited')
            if event['event'] != 'stopped':
                return
            thread = event['body']['threadId']
            stack = self.ask('stackTrace', threadId=thread)
            yield [frame['name'] for frame in stack['stackFrames']]
            self.ask('continue', threadId=thread)
