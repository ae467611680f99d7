"""What a node counts: the one table of all counters, and the numbers since the node's start.

A message that is lost is lost for a reason, and each reason has its counter (`DROPPED`), kept by the node where it
happened: the sender's for what never left it, the receiver's for what came in. What the sender is told of by an
exception (`MailboxFull`, `LinkCongested`, `MessageTooLarge`, a call's error) was not dropped, and is not counted.
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

DROPPED: Mapping[str, str] = MappingProxyType(
    {
        "sends_to_dead_processes": "messages for a process that is dead, or ends as its node drains, here or there",
        "sends_to_unknown_names": "messages from other nodes for a name of this node alone that nobody here has",
        "sends_to_lost_nodes": "messages for a node that is not connected",
        "sends_to_congested_nodes": "messages to groups that left out a node for which too much was waiting",
        "mailbox_overflows": "messages, and calls of other nodes, for a mailbox at its bound",
        "unforwarded_messages": "messages that could not be passed on to the process that has taken over",
        "unread_messages": "messages that waited in the mailbox of a process when it ended",
        "unreadable_messages": "messages that could not be decoded, or do not fit their type",
        "unhandled_messages": "messages that a server has no method for, or plain ones where only calls are taken",
        "expired_calls": "calls whose callers had given up before they were taken up",
        "late_answers": "answers to calls whose callers had given up",
        "answers_to_lost_nodes": "answers to calls of a node that is not connected any longer",
    }
)
"""Messages that nobody got, by reason."""

HAPPENED: Mapping[str, str] = MappingProxyType(
    {
        "peers_lost": "sessions with peers that ended",
        "peer_stalls": "times at which a peer reported that its event loop stood still",
        "own_stalls": "times at which this node's own event loop stood still",
        "stall_reports_dropped": "reports of stalls that were forged, repeated, or for a session that is over",
        "links_congested": "times at which more than `high_water` came to wait for a peer",
        "outbox_overflows": "sessions ended, or nodes given up, because more than `max_outbox` waited for them",
        "protocol_errors": "sessions closed because the other end broke the protocol",
        "handshakes_failed": "connections that did not prove the cookie",
        "half_open_dropped": "connections closed before their handshake, to make room for others",
        "accept_errors": "times at which no connection could be accepted, as for want of file descriptors",
        "names_contested": "claims of this node that another one, older or confirmed, stood against",
        "names_lost": "confirmed names of this node that went to an older holder after a partition, or with its lease",
        "leases_lost": "leases from etcd that ended before this node did, with all names it had",
        "registry_follows_ended": "times at which etcd stopped telling of changes, and was asked to go on",
        "registry_unreadable": "keys in etcd that are neither a name nor a node nor a member of a group",
        "mirrors_synced": "peers whose names came whole",
        "mirrors_resumed": "peers that came back and sent only what was new",
        "registry_divergence_total": "times at which what a peer told and what was kept of it differed; 0, or a bug",
        "calls_sent_again": "calls by name that went on to the process that has taken over",
        "children_restarted": "starts of children that a supervisor had started before",
        "spawns_refused": "processes that another node asked for and did not get",
        "unwanted_spawns": "processes started elsewhere for whoever had given up, and ended at once",
        "undrained_calls": "calls that had no answer when the time of a drain was up",
        "undrained_messages": "messages that waited when the time of a drain was up; unread if nobody came to them",
    }
)
"""Everything else that is counted."""


class Counters(Counter[str]):
    """The numbers of one node, by the names in `DROPPED` and `HAPPENED`; what never happened is 0."""

    def dropped(self) -> dict[str, int]:
        """The messages that nobody got, by reason; only reasons that there were."""
        return {name: self[name] for name in DROPPED if self[name]}
