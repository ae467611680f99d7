"""Recorded frames: what went over the wire once must mean the same for ever. docs/protocol.md shows the same bytes.

Bytes are grouped as length, tag, array of operations, then field by field. The handshake is that of Ada and Bob in
`tests.wire.pair`: their names, cookie, nonces and fingerprints, and these two creations.
"""

from typing import NamedTuple

from msgspec import Raw

from kinfolk.ids import Pid
from kinfolk.wire.frames import (
    Acknowledged,
    Answered,
    AskAnswered,
    AskSettled,
    Broadcast,
    Called,
    Challenge,
    ChallengeAck,
    ChallengeReply,
    ExitSignal,
    Fragment,
    Goodbye,
    GroupEntered,
    Hello,
    LedgerResumed,
    LedgerSynced,
    LinkMade,
    LinkUndone,
    MonitorFired,
    MonitorMade,
    MonitorUndone,
    NameClaimed,
    NameConfirmed,
    NameContested,
    NameMoved,
    NamesWithdrawn,
    NodeLeft,
    Operation,
    Peers,
    Ping,
    Pong,
    Refusal,
    RegistrationAsked,
    Rest,
    ResyncAsked,
    Sent,
    SentToName,
    SpawnAnswered,
    SpawnAsked,
    StallPort,
    SuccessionAnswered,
    SuccessionAsked,
    SuccessionRevoked,
    TransferAsked,
    UnlinkAcknowledged,
    UnregistrationAsked,
)
from tests.wire.pair import ADA, ADA_NONCE, BOB, BOB_NONCE

ADA_CREATION = 0x18FE2A5C0DE00001
BOB_CREATION = 0x18FE2A5C0DE00002
STAMP = 0x018C0000ABCD0000
DIGEST = 0x010D38744DCE9467
"""Of a ledger with a confirmed claim of "db", an unconfirmed one of "näme", and a member of "stores"."""

HI, HO = Raw(b"\xa2hi"), Raw(b"\xa2ho")

REPLY_PROOF = bytes.fromhex("20681d1e5514363a4e77c590232e44bea1ebd0743d6bb54e5b251e6e9c44617b")
ACK_PROOF = bytes.fromhex("fe8ac4ffdaf408e57d74e7807ff057748da44bb38d07048e4255215f495defca")


class Vector(NamedTuple):
    operations: list[Operation]
    hex: str

    @property
    def frame(self) -> bytes:
        return bytes.fromhex(self.hex)


VECTORS: dict[type[Operation], Vector] = {
    Hello: Vector(
        [Hello(1, [], "peer", "kinfolk", ADA, ADA_CREATION, BOB, ADA_NONCE)],
        "61000000 01 91 98 01 90 a470656572 a76b696e666f6c6b b16164614031302e302e302e313a34333730"
        " cf18fe2a5c0de00001 b1626f624031302e302e302e323a34333730"
        " c4200a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
    ),
    Challenge: Vector(
        [Challenge(1, [], "kinfolk", BOB, BOB_CREATION, BOB_NONCE)],
        "4a000000 02 91 96 01 90 a76b696e666f6c6b b1626f624031302e302e302e323a34333730 cf18fe2a5c0de00002"
        " c4200b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
    ),
    ChallengeReply: Vector(
        [ChallengeReply(REPLY_PROOF)],
        "25000000 03 91 91 c42020681d1e5514363a4e77c590232e44bea1ebd0743d6bb54e5b251e6e9c44617b",
    ),
    ChallengeAck: Vector(
        [ChallengeAck(ACK_PROOF)],
        "25000000 04 91 91 c420fe8ac4ffdaf408e57d74e7807ff057748da44bb38d07048e4255215f495defca",
    ),
    Refusal: Vector(
        [Refusal("stale", "newer", ADA_CREATION)],
        "18000000 05 91 93 a57374616c65 a56e65776572 cf18fe2a5c0de00001",
    ),
    Sent: Vector([Sent(3, 7, HI), Sent(4, None, HO)], "0e000000 10 92 93 03 07 a26869 93 04 c0 a2686f"),
    SentToName: Vector([SentToName("logger", 7, HI)], "0e000000 11 91 93 a66c6f67676572 07 a26869"),
    Broadcast: Vector([Broadcast("stores", 7, HI)], "0e000000 1e 91 93 a673746f726573 07 a26869"),
    Called: Vector([Called(3, 7, 1, 5000, HI)], "0c000000 34 91 95 03 07 01 cd1388 a26869"),
    Answered: Vector([Answered(1, "ok", HO)], "0a000000 35 91 93 01 a26f6b a2686f"),
    Fragment: Vector(
        [Fragment(1, 0x34, 10, b"\x95\x03\x07\x01\xcd"), Fragment(1, 0x34, 10, b"\x13\x88\xa2hi")],
        "18000000 3e 92 94 01 34 0a c405 95030701cd 94 01 34 0a c405 1388a26869",
    ),
    ExitSignal: Vector(
        [
            ExitSignal(3, None, "kill"),
            ExitSignal(3, 7, "crash", True, ["ValueError", "no", "..."]),
            ExitSignal(4, 7, "name_lost", True, ["db", f"{BOB}/1/4"]),
        ],
        "51000000 15 93 95 03 c0 a46b696c6c c2 90 95 03 07 a56372617368 c3 93 aa56616c75654572726f72 a26e6f a32e2e2e"
        " 95 04 07 a96e616d655f6c6f7374 c3 92 a26462 b5626f624031302e302e302e323a343337302f312f34",
    ),
    LinkMade: Vector([LinkMade(3, 7)], "05000000 13 91 92 03 07"),
    LinkUndone: Vector([LinkUndone(3, 7, 1)], "06000000 14 91 93 03 07 01"),
    UnlinkAcknowledged: Vector([UnlinkAcknowledged(7, 3, 1)], "06000000 40 91 93 07 03 01"),
    MonitorMade: Vector([MonitorMade(1, 3), MonitorMade(2, "logger")], "0e000000 16 92 92 01 03 92 02 a66c6f67676572"),
    MonitorUndone: Vector([MonitorUndone(1)], "04000000 17 91 91 01"),
    MonitorFired: Vector(
        [MonitorFired(1, 3, "normal"), MonitorFired(2, None, "noproc")],
        "18000000 18 92 94 01 03 a66e6f726d616c 90 94 02 c0 a66e6f70726f63 90",
    ),
    SpawnAsked: Vector(
        [
            SpawnAsked(1, "jobs:resize", 7, True, 2, None, Raw(b"\x91\x05")),
            SpawnAsked(2, "a:b", None, False, None, 9, Raw(b"\x90")),
        ],
        "21000000 19 92 97 01 ab6a6f62733a726573697a65 07 c3 02 c0 9105 97 02 a3613a62 c0 c2 c0 09 90",
    ),
    SpawnAnswered: Vector(
        [SpawnAnswered(1, "ok", 3), SpawnAnswered(2, "not_allowed", detail="no")],
        "1b000000 1a 92 94 01 a26f6b 03 a0 94 02 ab6e6f745f616c6c6f776564 00 a26e6f",
    ),
    Peers: Vector(
        [Peers([ADA, "carl@[::1]:4370"], BOB_CREATION, 7, [ADA_CREATION, 5])],
        "3b000000 12 91 94 92 b16164614031302e302e302e313a34333730 af6361726c405b3a3a315d3a34333730"
        " cf18fe2a5c0de00002 07 92 cf18fe2a5c0de00001 05",
    ),
    Ping: Vector([Ping(1, 2, DIGEST)], "0e000000 f0 91 93 01 02 cf010d38744dce9467"),
    Pong: Vector([Pong(1)], "04000000 f1 91 91 01"),
    NodeLeft: Vector([NodeLeft(ADA_CREATION)], "0c000000 3f 91 91 cf18fe2a5c0de00001"),
    StallPort: Vector(
        [StallPort(4370, 3, bytes(range(32)))],
        "29000000 46 91 93 cd1112 03 c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ),
    Rest: Vector([Rest(True), Rest(False)], "06000000 47 92 91c3 91c2"),
    Goodbye: Vector([Goodbye("closed", "bye")], "0e000000 36 91 92 a6636c6f736564 a3627965"),
    NameClaimed: Vector(
        [NameClaimed(1, "db", 3, STAMP), NameClaimed(2, "näme", 4, STAMP + 1)],
        "25000000 1b 92 95 01 a26462 03 cf018c0000abcd0000 c0 95 02 a56ec3a46d65 04 cf018c0000abcd0001 c0",
    ),
    NamesWithdrawn: Vector(
        [NamesWithdrawn(3, ["db", "näme"], [1, 2]), NamesWithdrawn(4, [], [], ["stores"], 3)],
        "20000000 1c 92 95 03 92a26462a56ec3a46d65 920102 90 00 95 04 90 90 91a673746f726573 03",
    ),
    NameMoved: Vector([NameMoved(4, "db", 1, 5)], "09000000 41 91 9404a264620105"),
    LedgerSynced: Vector(
        [
            LedgerSynced(
                ADA_CREATION,
                5,
                True,
                ["db", "näme"],
                [3, 4],
                [1, 2],
                [STAMP, STAMP + 1],
                [True, False],
                ["stores"],
                [3],
            )
        ],
        "40000000 1d 91 9c cf18fe2a5c0de00001 05 c3 92a26462a56ec3a46d65 920304 920102"
        " 92cf018c0000abcd0000cf018c0000abcd0001 92c3c2 91a673746f726573 9103 90 90",
    ),
    LedgerResumed: Vector([LedgerResumed(5, 7)], "05000000 3b 91 92 05 07"),
    ResyncAsked: Vector([ResyncAsked(5)], "04000000 3c 91 91 05"),
    GroupEntered: Vector([GroupEntered(4, "stores", 3)], "0c000000 3d 91 93 04 a673746f726573 03"),
    NameConfirmed: Vector([NameConfirmed(3, "db", 1)], "08000000 31 91 93 03 a26462 01"),
    Acknowledged: Vector([Acknowledged([1, 2]), Acknowledged([], 7)], "0a000000 30 92 92 920102 00 92 90 07"),
    NameContested: Vector(
        [NameContested("db", 1, ADA, ADA_CREATION, 2, 4, STAMP + 1, True)],
        "2e000000 32 91 98 a26462 01 b16164614031302e302e302e313a34333730 cf18fe2a5c0de00001 02 04"
        " cf018c0000abcd0001 c3",
    ),
    RegistrationAsked: Vector(
        [RegistrationAsked(1, "db", 3, 7000, "exit")], "10000000 37 91 95 01 a26462 03 cd1b58 a465786974"
    ),
    TransferAsked: Vector(
        [TransferAsked(3, "db", 1, Pid(BOB, BOB_CREATION, 4), 7000)],
        "28000000 45 91 9503a264620193b1626f624031302e302e302e323a34333730cf18fe2a5c0de0000204cd1b58",
    ),
    SuccessionAsked: Vector([SuccessionAsked(1, "db", 1, 4, "exit")], "0e000000 42 91 9501a264620104a465786974"),
    SuccessionAnswered: Vector(
        [SuccessionAnswered(1, "ready"), SuccessionAnswered(2, "dead", "gone")],
        "17000000 43 92 9301a57265616479a09302a464656164a4676f6e65",
    ),
    SuccessionRevoked: Vector([SuccessionRevoked(1)], "04000000 44 91 9101"),
    UnregistrationAsked: Vector([UnregistrationAsked(2, "db", 1, 7000)], "0b000000 38 91 94 02 a26462 01 cd1b58"),
    AskAnswered: Vector(
        [
            AskAnswered(1, "ok", 1, STAMP),
            AskAnswered(2, "taken", holder=Pid(BOB, BOB_CREATION, 4)),
            AskAnswered(3, "missing", missing=[BOB]),
            AskAnswered(4, "dead", detail="gone"),
        ],
        "6e000000 39 94 97 01 a26f6b 01 cf018c0000abcd0000 c0 90 a0 97 02 a574616b656e 00 00"
        " 93b1626f624031302e302e302e323a34333730cf18fe2a5c0de0000204 90 a0 97 03 a76d697373696e67 00 00 c0"
        " 91b1626f624031302e302e302e323a34333730 a0 97 04 a464656164 00 00 c0 90 a4676f6e65",
    ),
    AskSettled: Vector([AskSettled(1, True)], "05000000 3a 91 92 01 c3"),
}
"""One for each kind of frame."""

MORE = {
    "PEER_LIST without peers": Vector([Peers([])], "07000000 12 91 94 90 00 00 90"),
    "GLOBAL_SYNC without claims": Vector(
        [LedgerSynced(ADA_CREATION, 0, True, [], [], [], [], [])],
        "17000000 1d 91 9c cf18fe2a5c0de00001 00 c3 90 90 90 90 90 90 90 90 90",
    ),
    "GLOBAL_REGISTER of an heir": Vector(
        [NameClaimed(1, "db", 3, STAMP - 1, (BOB, BOB_CREATION, 2))],
        "2e000000 1b 91 9501a2646203cf018c0000abccffff93b1626f624031302e302e302e323a34333730cf18fe2a5c0de0000202",
    ),
    "GLOBAL_SYNC with an heir": Vector(
        [
            LedgerSynced(
                ADA_CREATION, 1, True, ["db"], [3], [1], [STAMP - 1], [True], [], [], [0], [(BOB, BOB_CREATION, 2)]
            )
        ],
        "44000000 1d 91 9ccf18fe2a5c0de0000101c391a264629103910191cf018c0000abccff"
        " ff91c3909091009193b1626f624031302e302e302e323a34333730cf18fe2a5c0de0000202",
    ),
    "CALL by name, by nobody": Vector(
        [Called("kinfolk", None, 2, 5000, HI)],
        "13000000 34 91 95 a76b696e666f6c6b c0 02 cd1388 a26869",
    ),
}
