"""Erlang-style processes for asyncio, in a cluster where every node knows every name."""

from kinfolk.cookie import Cookie, new_cookie
from kinfolk.effects import MemberAdded, MemberRemoved, NameAdded, NameRemoved
from kinfolk.errors import (
    AuthenticationFailed,
    CallFailed,
    CallTimeout,
    ChildFailed,
    KinfolkError,
    LinkCongested,
    LocalProtocolError,
    MailboxFull,
    MessageTooLarge,
    NameLost,
    NameTaken,
    NameUnknown,
    NameWaitTimeout,
    NodeClosed,
    NodeLost,
    NodeUnreachable,
    NoProcess,
    NotAllowed,
    NotConfirmed,
    NotSerializable,
    ProtocolError,
    Refused,
    RemoteProtocolError,
    SpawnFailed,
)
from kinfolk.groups import GroupResync, Groups, GroupWatch
from kinfolk.ids import Pid
from kinfolk.messages import Call, Down, Exit, PeerDown, PeerUp, Ref, Replies, Request, Unknown
from kinfolk.node import Node, run, start
from kinfolk.process import Process, current_process
from kinfolk.reasons import Crash, Reason, Stop
from kinfolk.registries.etcd import Etcd
from kinfolk.registry import Names, NameWatch, Registration, Resync
from kinfolk.server import Server
from kinfolk.shell.alarms import Alarm
from kinfolk.shell.tls import OwnCertificates
from kinfolk.supervisor import Child, ChildInfo, Supervision, Supervisor

__version__ = "0.1.0"

__all__ = [
    "Alarm",
    "AuthenticationFailed",
    "Call",
    "CallFailed",
    "CallTimeout",
    "Child",
    "ChildFailed",
    "ChildInfo",
    "Cookie",
    "Crash",
    "Down",
    "Etcd",
    "Exit",
    "GroupResync",
    "GroupWatch",
    "Groups",
    "KinfolkError",
    "LinkCongested",
    "LocalProtocolError",
    "MailboxFull",
    "MemberAdded",
    "MemberRemoved",
    "MessageTooLarge",
    "NameAdded",
    "NameLost",
    "NameRemoved",
    "NameTaken",
    "NameUnknown",
    "NameWaitTimeout",
    "NameWatch",
    "Names",
    "NoProcess",
    "Node",
    "NodeClosed",
    "NodeLost",
    "NodeUnreachable",
    "NotAllowed",
    "NotConfirmed",
    "NotSerializable",
    "OwnCertificates",
    "PeerDown",
    "PeerUp",
    "Pid",
    "Process",
    "ProtocolError",
    "Reason",
    "Ref",
    "Refused",
    "Registration",
    "RemoteProtocolError",
    "Replies",
    "Request",
    "Resync",
    "Server",
    "SpawnFailed",
    "Stop",
    "Supervision",
    "Supervisor",
    "Unknown",
    "__version__",
    "current_process",
    "new_cookie",
    "run",
    "start",
]
