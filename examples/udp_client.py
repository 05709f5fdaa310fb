"""Sends one datagram and prints the answer.

    python udp_client.py HOST:PORT TEXT
"""
import sys

from gevent import socket


def main():
    host, port = sys.argv[1].rsplit(':', 1)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((host, int(port)))
        sock.send(sys.argv[2].encode())
        print(sock.recv(8192).decode())


if __name__ == '__main__':
    main()
