"""Which tests prove which scenario. H is the heartbeat interval, D the silence after which a node is down.

Each row: the scenario in a few words, and the tests, the one that follows it to the letter first. A test is named by
its file and function; the parameters are left out.
"""

from typing import NamedTuple

FIVE = "tests/faults/test_five.py::"
NAMESPACES = "tests/faults/test_namespaces.py::"


class Scenario(NamedTuple):
    """A fault, and its tests."""

    what: str
    tests: tuple[str, ...]


def _five(name: str, *others: str) -> tuple[str, ...]:
    return (FIVE + name, *(f"tests/{other}" for other in others))


def _wired(name: str, *others: str) -> tuple[str, ...]:
    return (NAMESPACES + name, *(f"tests/{other}" for other in others))


def _those(*tests: str) -> tuple[str, ...]:
    return tuple(f"tests/{test}" for test in tests)


SCENARIOS: dict[str, Scenario] = {
    "D01": Scenario(
        "2 to 5 join by 1 alone: ten connections",
        _five(
            "test_d01_who_joins_one_is_connected_with_all",
            "system/test_mesh.py::test_four_that_join_one_are_connected_each_with_all_by_ten_connections",
        ),
    ),
    "D02": Scenario(
        "a registered name is found and called everywhere",
        _five("test_d02_a_registered_name_is_the_same_everywhere_at_once"),
    ),
    "D03": Scenario(
        "a held name is refused, and nothing changes",
        _five("test_d03_a_held_name_is_refused_and_nothing_changes"),
    ),
    "D04": Scenario(
        "five register one name at once, 200 rounds",
        _five(
            "test_d04_of_five_that_register_at_once_one_succeeds_in_each_of_200_rounds",
            "system/test_names.py::test_of_nodes_that_race_for_a_name_exactly_one_wins_and_everybody_agrees_at_once",
        ),
    ),
    "D05": Scenario(
        "given up at its owner, registered elsewhere",
        _five("test_d05_a_name_given_up_is_gone_and_can_be_had_elsewhere"),
    ),
    "D06": Scenario(
        "given up by another node than its owner's",
        _five("test_d06_a_name_is_given_up_for_others_by_its_owner", "node/test_asks.py"),
    ),
    "D07": Scenario("an old handle", _five("test_d07_an_old_handle_is_told_so_and_changes_nothing")),
    "D08": Scenario(
        "a named process returns, raises, is killed, is cancelled",
        _five("test_d08_the_end_of_a_named_process_frees_its_name_and_is_told_once_with_its_reason"),
    ),
    "D09": Scenario(
        "a supervised name crashes 500 times",
        _five("test_d09_a_supervised_name_moves_to_the_new_process_through_500_crashes"),
    ),
    "D10": Scenario(
        "kill -9 of a node",
        _wired(
            "test_d10_d18_a_killed_node_takes_its_own_names_along_and_comes_back_as_another",
            "system/test_names.py::test_a_thousand_names_of_five_nodes_are_known_everywhere_and_a_killed_node_takes_"
            "exactly_its_own_along",
            "system/test_links.py::test_a_killed_program_ends_its_links_and_monitors_and_its_next_start_is_another_node",
        ),
    ),
    "D11": Scenario(
        "all links of a node are cut",
        _wired("test_d11_an_isolated_node_is_dropped_and_drops_the_others"),
    ),
    "D12": Scenario(
        "survivors of a killed holder race for its name, 100 rounds",
        _those(
            "system/test_endurance.py::test_a_hundred_failovers_end_with_one_holder_each",
            "system/test_restart.py::test_the_survivors_of_a_killed_holder_race_for_its_name_and_one_has_it",
        ),
    ),
    "D13": Scenario(
        "a partition, with a name registered on both sides",
        _wired(
            "test_d13_a_partition_is_consistent_on_both_sides_and_heals_with_one_loser_told_once",
            "system/test_partition.py::test_both_sides_of_a_partition_work_and_after_it_the_earlier_holder_stays_and_"
            "the_other_is_told_once",
        ),
    ),
    "D14": Scenario(
        "the link of two nodes is cut",
        _wired(
            "test_d14_a_cut_between_two_changes_nothing_at_the_others",
            "system/test_partition.py::test_a_break_between_two_nodes_changes_nothing_at_a_third",
        ),
    ),
    "D15": Scenario(
        "one TCP connection drops, 100 times",
        _wired(
            "test_d15_a_connection_that_drops_a_hundred_times_costs_others_nothing",
            "system/test_endurance.py::test_a_hundred_drops_of_one_link_cost_third_nodes_nothing",
            "system/test_crowds.py::test_a_link_that_is_cut_fifty_times_leaves_nothing_behind",
        ),
    ),
    "D16": Scenario(
        "SIGSTOP for 4 D, SIGCONT",
        _five(
            "test_d16_who_was_stopped_for_long_wakes_declares_nobody_dead_and_is_whole_again",
            "system/test_restart.py::test_a_node_stopped_for_long_is_dropped_and_wakes_to_rejoin_without_declaring_"
            "anybody_dead",
        ),
    ),
    "D17": Scenario(
        "SIGSTOP for D / 2",
        _five(
            "test_d17_who_was_stopped_for_a_moment_loses_nothing",
            "system/test_restart.py::test_a_node_stopped_for_half_the_time_loses_nothing_and_gets_its_messages_in_order",
        ),
    ),
    "D18": Scenario(
        "kill -9, and the same name again at once",
        _wired(
            "test_d10_d18_a_killed_node_takes_its_own_names_along_and_comes_back_as_another",
            "system/test_restart.py::test_a_restarted_node_is_new_everywhere_and_its_old_names_and_pids_are_dead",
            "system/test_restart.py::test_a_restart_that_nobody_has_noticed_supersedes_the_dead_node",
        ),
    ),
    "D19": Scenario(
        "a link of 200 ms with 5 % loss (KINFOLK_FAULTS_LOSSY_SECONDS=600 for all of it)",
        _wired("test_d19_a_slow_and_lossy_link_loses_no_session_and_registers_confirm"),
    ),
    "D20": Scenario(
        "50 MB for a stopped node",
        _five(
            "test_d20_who_does_not_read_50_mb_disturbs_no_other",
            "system/test_overload.py::test_a_peer_that_is_stopped_is_closed_at_the_bound_and_the_sender_keeps_little",
            "system/test_crowds.py::test_a_peer_that_hardly_reads_slows_nobody_and_costs_a_bounded_outbox",
        ),
    ),
    "D21": Scenario(
        "a join where there are 100,000 names that change",
        _five(
            "test_d21_a_hundred_thousand_names_are_complete_when_a_join_returns_and_disturb_nobody",
            "system/test_endurance.py::test_ten_joins_of_a_cluster_with_a_hundred_thousand_names_that_change_all_the_time",
        ),
    ),
    "D22": Scenario(
        "a wrong cookie, in both directions",
        _those(
            "system/test_hostile.py::test_a_node_with_another_cookie_is_refused_and_told_so",
            "system/test_hostile.py::test_dialling_a_node_with_another_cookie_is_refused_and_told_so",
            "test_secrecy.py::test_nodes_that_refuse_each_other_show_nothing",
        ),
    ),
    "D23": Scenario(
        "silent connections, random bytes, length 0xFFFFFFFF",
        _those(
            "system/test_endurance.py::test_a_thousand_strangers_keep_no_node_from_joining_and_cost_little",
            "system/test_hostile.py::test_a_plain_tcp_client_is_turned_away",
        ),
    ),
    "D24": Scenario(
        "frames of a peer, cut at every byte and mutated",
        _those(
            "system/test_endurance.py::test_ten_thousand_mutated_frames_of_a_peer_end_its_session_at_most",
            "hostile/test_wrong_frames.py::test_a_frame_that_cannot_be_read_ends_the_session",
            "system/test_hostile.py::test_a_garbage_frame_of_a_peer_ends_its_session_alone",
        ),
    ),
    "D25": Scenario(
        "remote spawn of what is not allowed, unknown, or raises",
        _five(
            "test_d25_what_may_not_be_spawned_is_not_run",
            "system/test_remote.py::test_what_is_not_listed_is_not_started_whatever_it_is_called",
        ),
    ),
    "D26": Scenario(
        "what is open with defaults is on loopback, and foreign pages are turned away",
        _five(
            "test_d26_with_defaults_a_node_listens_on_loopback_at_its_own_port_alone",
            "node/test_metrics.py::test_a_page_from_elsewhere_and_a_name_made_to_lead_here_are_turned_away",
            "node/test_metrics.py::test_beyond_loopback_a_token_is_needed_and_must_be_shown",
        ),
    ),
    "D27": Scenario(
        "a user function blocks the loop for D / 2, and for 2 D",
        _those(
            "system/test_stalls.py::test_a_stall_of_half_the_time_is_reported_and_drops_nothing",
            "system/test_stalls.py::test_a_node_that_computes_for_twice_the_time_keeps_names_links_and_sessions",
            "system/test_stalls.py::test_a_stall_beyond_the_limit_costs_the_session_and_all_is_whole_again_after_it",
        ),
    ),
    "D28": Scenario(
        "a wall clock that jumps by hours",
        _those(
            "system/test_clocks.py::test_a_clock_that_jumps_about_changes_nothing_but_who_wins",
            "system/test_clocks.py::test_clocks_that_are_hours_apart_share_one_table",
        ),
    ),
    "D29": Scenario(
        "five start within 10 ms and know all others, 50 rounds",
        _those(
            "system/test_endurance.py::test_fifty_simultaneous_starts_end_with_ten_sessions_each",
            "system/test_mesh.py::test_five_that_start_at_once_and_know_all_others_have_exactly_one_session_for_each_pair",
        ),
    ),
    "D30": Scenario(
        "one direction of a link is cut",
        _wired(
            "test_d30_one_direction_cut_is_noticed_by_both_ends_once_and_heals",
            "system/test_partition.py::test_one_direction_cut_is_noticed_by_both_ends_and_heals",
        ),
    ),
    "D31": Scenario(
        "a node is drained under load",
        _those(
            "system/test_leaving.py::test_a_drain_under_load_loses_no_call_and_peers_see_it_leave_at_once",
            "node/test_leaving.py::test_a_singleton_does_what_it_has_and_runs_elsewhere_before_its_node_has_left",
            "node/test_leaving.py::test_a_drain_that_is_not_done_in_time_says_what_is_left_and_leaves_all_the_same",
        ),
    ),
    "D32": Scenario(
        "register, call and connect cancelled at random moments",
        _five(
            "test_d32_what_is_cancelled_at_any_moment_hangs_nothing_and_leaks_nothing",
            "node/test_cancellation.py::test_a_register_cancelled_at_any_moment_holds_the_name_with_the_knowledge_of_its_"
            "caller_or_not_at_all",
            "node/test_cancellation.py::test_a_call_cancelled_at_any_moment_is_answered_or_forgotten",
            "node/test_cancellation.py::test_a_connect_cancelled_at_any_moment_leaves_the_node_able_to_connect",
        ),
    ),
}

STORIES: dict[str, Scenario] = {
    "lost unregister": Scenario(
        "a name given up while a third was cut off comes back there",
        _five("test_a_name_given_up_by_another_while_a_third_was_cut_off_does_not_come_back"),
    ),
    "respawn": Scenario(
        "an exit and the registration after it overtake each other",
        _five("test_d09_a_supervised_name_moves_to_the_new_process_through_500_crashes"),
    ),
    "failover": Scenario(
        "a dead node's name is taken before another has noticed the death",
        _five(
            "test_a_survivor_takes_the_dead_nodes_name_before_another_has_noticed_the_death",
            "system/test_endurance.py::test_a_hundred_failovers_end_with_one_holder_each",
        ),
    ),
    "blip": Scenario(
        "one link drops once, and third nodes lose names",
        _wired("test_d15_a_connection_that_drops_a_hundred_times_costs_others_nothing"),
    ),
    "rolling restart": Scenario(
        "each node comes back and registers its own names at once",
        _those("system/test_restart.py::test_all_nodes_restarted_one_after_the_other_have_their_names_again"),
    ),
    "half frame": Scenario(
        "a pause between length and payload makes a reader lose its place",
        _five(
            "test_a_frame_of_which_only_the_length_has_come_keeps_its_place",
            "wire/test_reader.py::test_every_cut_of_two_frames_into_three_pieces",
        ),
    ),
    "replaced session": Scenario(
        "what is left of an old connection ends the new one",
        _those(
            "system/test_partition.py::test_a_session_that_only_one_end_has_lost_is_replaced",
            "node/test_exits.py::test_what_stands_in_a_frame_behind_the_end_of_its_session_does_not_arrive",
            "core/test_members.py",
        ),
    ),
    "deadlock of the full": Scenario(
        "both ends write into full buffers",
        _five("test_two_that_write_into_full_buffers_at_once_both_get_through"),
    ),
    "own echo": Scenario(
        "a node dials itself by an alias, or is handed its own former names",
        _those(
            "system/test_crowds.py::test_a_node_that_dials_itself_by_another_name_of_its_host_leaves_it_at_that",
            "system/test_restart.py::test_a_restart_that_nobody_has_noticed_supersedes_the_dead_node",
        ),
    ),
    "sleepers": Scenario(
        "a stopped node wakes and declares all others dead",
        _five("test_d16_who_was_stopped_for_long_wakes_declares_nobody_dead_and_is_whole_again"),
    ),
    "descriptors": Scenario(
        "a node cannot open any more files",
        _five("test_a_node_without_descriptors_keeps_its_sessions_and_accepts_again_when_it_has_some"),
    ),
}
