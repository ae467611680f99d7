"""For each guarantee, changes to the code that would break it, and the test that has to notice each.

The mutants of `tests.simulation` leave out the rules of the registry, one by one, and ask whether random schedules miss
them. Here stands one change or more for every guarantee, of the registry or not; and one test that was written for it.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """In `file`, below ``src/kinfolk``, `old` stands once; with `new` in its place, `test` has to fail."""

    guarantee: str
    what: str
    file: str
    old: str
    new: str
    test: str


GUARANTEES = {
    "one winner": "When register returns, everybody resolves the name to this pid, and no other register has returned.",
    "told the truth": "A confirmed name that is lost costs its process exactly one NameLost.",
    "convergence": "Connected nodes have equal tables, and no clock can break this.",
    "no resurrection": "A removed claim never returns; a removal removes exactly the claim it names.",
    "the dead are not named": "Whoever has exited or is lost is found no more.",
    "third nodes": "A break between two nodes changes nothing at a third.",
    "deadlines": "Lookup waits for nothing, and every other call ends in time.",
    "slow peers": "Who is slow or silent delays no other, and what waits for it is bounded.",
    "order": "From one process to another everything arrives in order and at most once; a lost session says so.",
    "restart": "A newer start of a node supersedes the older one; its old pids are dead.",
    "joins": "Who has joined is connected with every reachable node and holds all their names.",
    "security": "Who does not know the cookie gets nowhere; who does can do what it may, and no more.",
}


def _mutants() -> Iterator[Mutant]:
    def breaks(guarantee: str, what: str, file: str, old: str, new: str, test: str) -> Mutant:
        return Mutant(guarantee, what, file, old, new, f"tests/{test}")

    yield breaks(
        "one winner",
        "a claim is acknowledged beside another one",
        "core/views.py",
        "        return not others or ([other",
        "        return True or ([other",
        "core/test_names.py::test_a_claim_is_acknowledged_only_while_it_is_alone",
    )
    yield breaks(
        "one winner",
        "a claim waits for nobody's acknowledgement",
        "core/ledger.py",
        "        return not self.peers\n",
        "        return True\n",
        "core/test_names.py::test_a_claim_holds_here_at_once_and_is_confirmed_when_every_peer_has_acknowledged_it",
    )
    yield breaks(
        "one winner",
        "a claim does not wait for peers that come up meanwhile",
        "core/ledger.py",
        "            self._missing[position].add(peer)\n",
        "            pass\n",
        "core/test_names.py::test_a_claim_also_waits_for_peers_that_come_up_meanwhile",
    )
    yield breaks(
        "one winner",
        "claims are confirmed during a join",
        "core/names.py",
        "        self.ledger.peer_up(Ledger.JOINING)\n",
        "        pass\n",
        "core/test_names.py::test_nothing_is_confirmed_while_a_join_is_in_progress",
    )
    yield breaks(
        "one winner",
        "nobody is told that somebody else claims a name as well",
        "core/views.py",
        "        return loser.pid.node in self.mirrors\n",
        "        return False\n",
        "core/test_names.py::test_who_sees_two_claims_tells_the_losers_origin_and_again_while_both_live",
    )
    yield breaks(
        "one winner",
        "whoever comes second and is too late keeps its claim",
        "orders.py",
        '            self._apply(self._names.withdraw([waiting.name], "unconfirmed", error.missing))\n',
        "            pass\n",
        "node/test_names.py::test_a_silent_peer_is_named_by_the_register_that_it_keeps_waiting_and_counted_out_by_the_next",
    )
    yield breaks(
        "convergence",
        "a node whose kernel has failed halfway goes on",
        "shell/driver.py",
        "            self._loop.call_soon(self._failed, error)\n",
        "            self._running = False\n",
        "node/test_life.py::test_a_node_whose_kernel_fails_halfway_ends_at_once_and_the_others_know",
    )
    yield breaks(
        "told the truth",
        "the loser is not told",
        "orders.py",
        '            self._agenda.do(fx.TellLoss(claim.pid.local, loss, "exit"',
        '            (fx.TellLoss(claim.pid.local, loss, "exit"',
        "node/test_names.py::test_two_nodes_that_each_hold_a_name_and_then_meet_keep_the_earlier_and_tell_the_other_once",
    )
    yield breaks(
        "told the truth",
        "a lost name is counted as a crash",
        "supervisor.py",
        "    if isinstance(slot.reason, NameLost) or _node_is_gone(slot):\n",
        "    if _node_is_gone(slot):\n",
        "node/test_supervisors.py::test_a_name_that_is_taken_meanwhile_is_waited_for_and_never_counts",
    )
    yield breaks(
        "told the truth",
        "a confirmed claim yields to an older one that is not",
        "core/views.py",
        "        return (not confirmed, winner.order) < (not own.confirmed, own.claim.order)\n",
        "        return winner.order < own.claim.order\n",
        "core/test_names.py::test_a_contested_claim_yields_only_to_one_of_higher_rank",
    )
    yield breaks(
        "convergence",
        "losing claims are forgotten",
        "core/views.py",
        '        """Losing claims are mirrored as well: dropped, they would be missing when the winner goes."""\n'
        "        return True\n",
        '        """Losing claims are dropped."""\n        return claim.name not in self.view\n',
        "core/test_names.py::test_losing_claims_are_mirrored_as_well",
    )
    yield breaks(
        "convergence",
        "a stamp of the far future carries our clock along",
        "core/clock.py",
        "        return (wall_ms + MAX_AHEAD_MS + 1) << 16\n",
        "        return _MAX_STAMP\n",
        "core/test_clock.py::test_a_stamp_too_far_ahead_does_not_move_our_clock",
    )
    yield breaks(
        "convergence",
        "a damaged mirror is not found",
        "core/names.py",
        "mirror.position == position and mirror.digest != digest\n",
        "mirror.position == position and False\n",
        "core/test_memberships.py::test_a_member_that_got_lost_in_memory_is_noticed",
    )
    yield breaks(
        "convergence",
        "what is disputed is contested only once",
        "core/names.py",
        "        for name in some:\n            self._judge(name)\n        self._contesting",
        "        self._contesting",
        "core/test_mirrors.py::test_what_is_disputed_is_contested_again_in_slices",
    )
    yield breaks(
        "no resurrection",
        "a withdrawal ends whatever claim of that name there is",
        "core/names.py",
        "            if claim is not None and claim.position == at:\n                if aside:\n",
        "            if claim is not None:\n                if aside:\n",
        "core/test_names.py::test_a_withdrawal_removes_exactly_the_claim_it_names",
    )
    yield breaks(
        "no resurrection",
        "an old handle gives up the new registration",
        "orders.py",
        "        if own is None or order.position not in (None, own.claim.position):\n",
        "        if own is None:\n",
        "node/test_names.py::test_an_old_handle_cannot_give_up_a_new_registration",
    )
    yield breaks(
        "no resurrection",
        "third nodes are believed about claims that are gone",
        "core/views.py",
        "        return mirror.complete and mirror.position >= winner.position\n",
        "        return False\n",
        "core/test_names.py::test_a_third_nodes_word_counts_nothing_about_a_claim_whose_origin_has_told_us_more",
    )
    yield breaks(
        "the dead are not named",
        "names of a lost node are found until their turn to leave has come",
        "core/names.py",
        "        self.refused.add(sweep.whose)\n",
        "        pass\n",
        "core/test_mirrors.py::test_a_lost_peers_names_are_refused_at_once_and_leave_the_views_in_slices",
    )
    yield breaks(
        "the dead are not named",
        "the exit of a process withdraws nothing",
        "core/names.py",
        "            self._withdraw_facts(list(facts))\n        elif facts:\n",
        "            pass\n        elif facts:\n",
        "core/test_names.py::test_the_exit_of_a_process_withdraws_all_its_names_in_one_entry",
    )
    yield breaks(
        "the dead are not named",
        "a claim of a dead process is confirmed",
        "core/views.py",
        "            if name is not None and self.refused and self.is_refused(self.own[name].claim.pid):\n",
        "            if False:\n",
        "core/test_mirrors.py::test_a_claim_of_a_dead_process_is_withdrawn_instead_of_confirmed",
    )
    yield breaks(
        "third nodes",
        "with one peer the names of all are lost",
        "core/names.py",
        "            self._sweep(_Sweep((peer, mirror.creation), mirror.facts()))\n",
        "            self._sweep(_Sweep((peer, mirror.creation), mirror.facts()))\n            self.view.clear()\n",
        "core/test_names.py::test_a_lost_peer_takes_its_names_with_it_and_nobody_elses",
    )
    yield breaks(
        "third nodes",
        "a lost session ends the links with everybody",
        "core/relations.py",
        "        changes: list[Change] = []\n        for own, other in peer.links:\n",
        "        changes = [change for each in list(self._peers) for change in self.peer_down(each, reason)]\n"
        "        for own, other in peer.links:\n",
        "core/test_relations.py::test_a_lost_session_costs_only_what_concerns_it",
    )
    yield breaks(
        "deadlines",
        "a register waits for a silent peer for ever",
        "orders.py",
        '        self._agenda.later(("order", waiting.ref), timeout)\n',
        "        pass\n",
        "node/test_names.py::test_a_silent_peer_is_named_by_the_register_that_it_keeps_waiting_and_counted_out_by_the_next",
    )
    yield breaks(
        "deadlines",
        "a call waits for an answer for ever",
        "shell/dataplane.py",
        "loop.call_later(left, self._time_out, waiting, timeout)\n",
        "loop.call_later(left + 1000, self._time_out, waiting, timeout)\n",
        "node/test_messages.py::test_a_call_ends_with_what_became_of_it",
    )
    yield breaks(
        "slow peers",
        "what waits for a peer has no bound",
        "shell/transport.py",
        "        if len(session.outbox.buffer) + self._held > self._owner.max_outbox:\n",
        "        if False:\n",
        "system/test_crowds.py::test_an_observer_that_reads_nothing_slows_nobody_and_is_sent_away",
    )
    yield breaks(
        "slow peers",
        "a silent peer is never lost",
        "core/silence.py",
        "        if self.unexplained(now) > down_after:\n",
        "        if False:\n",
        "kernel/test_stalls.py::test_a_peer_that_says_nothing_at_all_is_lost_as_ever",
    )
    yield breaks(
        "slow peers",
        "who has slept takes the others for dead",
        "kernel.py",
        "        late = now - due > self.settings.heartbeat\n",
        "        late = False\n",
        "kernel/test_transcripts.py::test_the_story_goes_as_it_is_told",
    )
    yield breaks(
        "order",
        "a session ends although something was said over it just now",
        "ondemand.py",
        "self._is_idle(session, self._idle_after / 2)",
        "self._is_idle(session, 0.0001)",
        "kernel/test_on_demand.py::test_it_agrees_if_it_has_been_quiet_for_half_of_the_time_and_says_no_if_not",
    )
    yield breaks(
        "order",
        "what is on its way to who has said goodbye overtakes the goodbye",
        "shell/transport.py",
        "        if not session.parting:\n",
        "        if True:\n",
        "node/test_leaving.py::test_the_last_word_of_a_node_is_heard_whatever_is_on_its_way_to_it",
    )
    yield breaks(
        "order",
        "what is said while a session may be about to end goes into it",
        "ondemand.py",
        "                self._agenda.do(fx.Hold(session.peer))\n",
        "",
        "kernel/test_on_demand.py::test_it_holds_what_is_said_until_the_other_has_answered",
    )
    yield breaks(
        "deadlines",
        "who waits for a session that cannot be opened is not told",
        "kernel.py",
        "fact.error, fact.code)\n                self._unreachable(target, fact.error)\n",
        "fact.error, fact.code)\n",
        "kernel/test_on_demand.py::test_a_dial_that_fails_makes_it_no_peer_until_it_is_reached_or_has_another_lease",
    )
    yield breaks(
        "order",
        "a lost session fires no monitor",
        "core/relations.py",
        "            changes.append(Fired(own, ref, watch.pid, watch.name, NOCONNECTION))\n",
        "            pass\n",
        "node/test_links.py::test_links_monitors_and_exits_are_those_of_erlang",
    )
    yield breaks(
        "order",
        "a lost session ends no link",
        "core/relations.py",
        "                changes.append(Signal(own, pid, NOCONNECTION, linked=True))\n",
        "                pass\n",
        "core/test_relations.py::test_a_lost_session_costs_only_what_concerns_it",
    )
    yield breaks(
        "restart",
        "an older start of a node is let in",
        "core/members.py",
        "        if creation < known:\n            return Verdict.STALE\n",
        "",
        "core/test_members.py::test_an_older_start_of_a_node_is_refused_for_good",
    )
    yield breaks(
        "restart",
        "a call to a pid of the old start goes to the new one",
        "shell/dataplane.py",
        "        if pid is not None and link.creation != pid.creation:\n",
        "        if False:\n",
        "system/test_restart.py::test_a_restarted_node_is_new_everywhere_and_its_old_names_and_pids_are_dead",
    )
    yield breaks(
        "joins",
        "a join ends in the midst of a long sync",
        "mesh.py",
        "        if goes_on and join.order.patient and join.times < _MOST:\n",
        "        if False:\n",
        "kernel/test_replication.py::test_a_join_waits_beyond_its_time_for_who_goes_on_telling_its_names",
    )
    yield breaks(
        "joins",
        "a join is over before the names have come",
        "mesh.py",
        "        return session is not None and session.greeted and session.synced\n",
        "        return session is not None\n",
        "node/test_names.py::test_five_thousand_names_are_there_when_the_join_returns",
    )
    yield breaks(
        "joins",
        "whom the seeds know is not waited for",
        "mesh.py",
        "        for join in self._joins.values():\n            self._include(join, peers)\n",
        "",
        "system/test_mesh.py::test_who_joins_holds_all_names_when_the_start_returns",
    )
    yield breaks(
        "security",
        "a proof does not name the certificates of the connection",
        "wire/handshake.py",
        "    return _CONTEXT + name + challenge + dialler + listener\n",
        "    return _CONTEXT + name + challenge\n",
        "attacks/test_attacks.py::test_a_handshake_relayed_by_an_employee_is_worthless",
    )
    yield breaks(
        "security",
        "both ends prove with one key",
        "wire/handshake.py",
        "        if not hmac.compare_digest(_proof(self._me.keys[0].listener, self._transcript), proof):\n",
        "        if not hmac.compare_digest(_proof(self._me.keys[0].dialler, self._transcript), proof):\n",
        "attacks/test_attacks.py::test_a_challenge_reflected_to_its_sender_is_worthless",
    )
    yield breaks(
        "security",
        "the listener takes any proof",
        "wire/handshake.py",
        "        if not known:\n",
        "        known = known or list(self._me.keys)\n        if not known:\n",
        "attacks/test_attacks.py::test_proofs_of_another_connection_are_worthless_in_this_one",
    )
    yield breaks(
        "security",
        "the dialler takes whoever answers",
        "wire/handshake.py",
        '        if self._hello.expects not in ("", listener.name):\n',
        "        if False:\n",
        "wire/test_handshake.py::test_a_listener_that_is_not_the_expected_node_is_left",
    )
    yield breaks(
        "security",
        "another version is spoken with",
        "wire/handshake.py",
        "        if hello.version != VERSION:  # before",
        "        if hello.version > 99:  # before",
        "attacks/test_attacks.py::test_no_other_version_of_the_protocol_is_spoken_by_either_end",
    )
    yield breaks(
        "security",
        "TLS 1.2 will do",
        "shell/tls.py",
        "    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3\n",
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        "attacks/test_attacks.py::test_no_older_tls_is_spoken_by_either_end",
    )
    yield breaks(
        "security",
        "a stranger needs no certificate",
        "shell/tls.py",
        "    context.verify_mode = ssl.CERT_REQUIRED\n",
        "    context.check_hostname = False\n    context.verify_mode = ssl.CERT_NONE\n",
        "shell/test_tls.py::test_a_client_without_a_certificate_is_refused",
    )
    yield breaks(
        "security",
        "a length is believed",
        "wire/reader.py",
        "            if not 0 < length <= self.limit:\n",
        "            if not 0 < length:\n",
        "wire/test_reader.py::test_a_long_frame_is_refused_by_its_length_before_anything_is_allocated",
    )
    yield breaks(
        "security",
        "an observer may say what a peer may",
        "wire/session.py",
        "            if tag not in OBSERVER_TAGS:\n",
        "            if False:\n",
        "wire/test_session.py::test_an_observer_asks_and_is_answered_and_no_more",
    )
    yield breaks(
        "security",
        "whoever says that a peer is stalled is believed",
        "wire/stalls.py",
        '    return hmac.compare_digest(tag, hmac.digest(key.reveal(), _CONTEXT + body, "sha256"))\n',
        "    return True\n",
        "shell/test_stalls.py::test_a_report_is_heard_once_and_what_is_forged_or_of_another_session_never",
    )
    yield breaks(
        "security",
        "whatever can be imported may be started",
        "allowed.py",
        "        body = self._table.get(name)\n",
        "        body = self._table.get(name) or next(iter(self._table.values()), None)\n",
        "attacks/test_attacks.py::test_nothing_is_started_but_what_is_listed",
    )
    yield breaks(
        "security",
        "a token may be guessed as often as somebody likes",
        "web.py",
        "        self._guesses.wrong(address, shown.reveal())\n",
        "",
        "dashboard/test_visitors.py::test_who_guesses_tokens_has_to_wait_and_nobody_else",
    )
    yield breaks(
        "security",
        "whoever opens many connections to the pages takes those of others",
        "visitors.py",
        "max(self._by_address.values(), key=len)",
        "next(iter(self._by_address.values()))",
        "dashboard/test_visitors.py::test_who_opens_too_many_connections_loses_its_own",
    )


MUTANTS = tuple(_mutants())
