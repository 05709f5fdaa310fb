"""The application that the other files here serve: put yours in its place."""
import os


def app(environ, start_response):
    """Answer with the number of the process, and what a proxy says of the client."""
    body = b'%d %s\n' % (os.getpid(), environ.get('HTTP_X_FORWARDED_FOR', '-').encode())
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
    return [body]
