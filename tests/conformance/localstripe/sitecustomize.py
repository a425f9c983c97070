"""Keeps localstripe at home. Python imports a module of this name before it runs a program.

localstripe listens on every interface and keeps its state in one file of the machine, and has no
option for either. Here it listens on loopback, and keeps no file.
"""

import builtins
import os
import socket

STATE = "/tmp/localstripe.pickle"
open_any, bind_any = builtins.open, socket.socket.bind


def open_elsewhere(file, *args, **kwargs):
    return open_any(os.devnull if file == STATE else file, *args, **kwargs)


def bind_to_loopback(self, address):
    # An IPv6 socket, which may hold an address of IPv4.
    return bind_any(self, ("::ffff:127.0.0.1", address[1]) if address[0] == "::" else address)


builtins.open, socket.socket.bind = open_elsewhere, bind_to_loopback
