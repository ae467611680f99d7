"""Which tests play which attack. docs/security.md tells the same to users, with one test a row.

A test is named by its file and function; the parameters are left out.
"""


def _attacks(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/attacks/test_attacks.py::test_{name}" for name in names)


def _those(*tests: str) -> tuple[str, ...]:
    return tuple(f"tests/{test}" for test in tests)


ATTACKS: dict[str, tuple[str, ...]] = {
    "man in the middle without the cookie": (
        *_attacks("a_man_in_the_middle_without_the_cookie_gets_nowhere"),
        *_those("shell/test_tls.py::test_another_cookie_is_refused"),
    ),
    "man in the middle with the cookie": _attacks("a_handshake_relayed_by_one_with_the_cookie_is_worthless"),
    "relay between honest nodes": (
        *_attacks("a_connection_led_to_another_member_is_refused", "a_handshake_relayed_by_an_employee_is_worthless"),
        *_those(
            "wire/test_handshake.py::test_a_relay_between_two_tls_connections_is_found_out",
            "wire/test_handshake.py::test_a_relayed_listener_is_found_out_by_the_dialler",
        ),
    ),
    "reflection": (
        *_attacks(
            "a_connection_led_back_to_its_dialler_is_refused", "a_challenge_reflected_to_its_sender_is_worthless"
        ),
        *_those(
            "wire/test_handshake.py::test_frames_reflected_to_their_sender_are_a_breach",
            "wire/test_handshake.py::test_a_proof_reflected_as_the_answer_to_itself_is_worthless",
            "wire/test_handshake.py::test_a_node_reflected_to_itself_with_other_names_cannot_prove_anything",
        ),
    ),
    "replay": (
        *_attacks(
            "a_recorded_connection_cannot_be_played_again", "proofs_of_another_connection_are_worthless_in_this_one"
        ),
        *_those(
            "wire/test_handshake.py::test_a_recorded_conversation_cannot_be_replayed_to_the_listener",
            "wire/test_handshake.py::test_a_recorded_conversation_cannot_be_replayed_to_the_dialler",
            "shell/test_tls.py::test_no_session_is_resumed",
        ),
    ),
    "a byte altered on the way": (
        *_attacks("a_byte_changed_on_the_way_ends_the_session_and_changes_nothing_else"),
        *_those(
            "wire/test_handshake.py::test_nothing_of_what_the_dialler_said_can_be_altered_on_the_way",
            "wire/test_handshake.py::test_nothing_of_what_the_listener_said_can_be_altered_on_the_way",
            "fuzz/test_fuzz.py::test_every_input_that_is_kept_is_taken",
        ),
    ),
    "downgrade of TLS": (
        *_attacks("no_older_tls_is_spoken_by_either_end"),
        *_those("shell/test_tls.py::test_tls_1_2_is_refused_at_both_ends"),
    ),
    "downgrade of the protocol": (
        *_attacks("no_other_version_of_the_protocol_is_spoken_by_either_end"),
        *_those("wire/test_handshake.py::test_nothing_of_what_the_dialler_said_can_be_altered_on_the_way"),
    ),
    "a stolen node name": (
        *_attacks("a_stolen_name_is_refused_while_its_owner_is_there"),
        *_those(
            "node/test_own_certificates.py::test_a_dialler_is_no_other_than_its_certificate_names",
            "node/test_own_certificates.py::test_a_listener_is_no_other_than_its_certificate_names",
        ),
    ),
    "a certificate without the cookie": (
        *_attacks("an_employee_without_the_cookie_proves_nothing"),
        *_those(
            "node/test_own_certificates.py::test_a_right_certificate_with_a_wrong_cookie_is_refused_and_both_ends_say_why"
        ),
    ),
    "frames before authentication": (
        *_attacks("what_is_said_before_the_proof_is_not_heard"),
        *_those("hostile/test_wrong_frames.py::test_a_frame_out_of_its_place_ends_the_session"),
    ),
    "slow handshakes": _those(
        "system/test_crowds.py::test_five_hundred_half_open_connections_keep_nobody_from_joining",
        "system/test_crowds.py::test_a_handshake_that_comes_byte_by_byte_ends_in_time",
        "system/test_endurance.py::test_a_thousand_strangers_keep_no_node_from_joining_and_cost_little",
    ),
    "length and count bombs": (
        *_attacks("announced_lengths_take_no_memory_before_they_come", "a_bomb_costs_neither_time_nor_memory"),
        *_those(
            "system/test_hostile.py::test_garbage_inside_tls_ends_the_connection",
            "hostile/test_wrong_frames.py::test_a_frame_that_is_too_long_or_empty_ends_the_session",
        ),
    ),
    "deep nesting": (
        *_attacks("a_bomb_costs_neither_time_nor_memory"),
        *_those("system/test_hostile.py::test_a_message_that_cannot_be_read_costs_only_itself"),
    ),
    "forged and repeated reports of stalls": _those(
        "shell/test_stalls.py::test_a_report_is_heard_once_and_what_is_forged_or_of_another_session_never",
        "shell/test_stalls.py::test_a_flood_is_looked_at_in_small_portions",
        "wire/test_stalls.py::test_a_report_with_any_bit_changed_is_not_genuine",
        "wire/test_stalls.py::test_a_report_under_another_key_is_not_genuine",
        "wire/test_stalls.py::test_garbage_is_no_report_or_not_genuine",
        "kernel/test_stalls.py::test_a_lying_peer_harms_itself_alone",
    ),
    "spawn of what is not allowed": (
        *_attacks("nothing_is_started_but_what_is_listed"),
        *_those(
            "system/test_remote.py::test_what_is_not_listed_is_not_started_whatever_it_is_called",
            "node/test_spawn_on.py::test_names_that_try_to_get_out_of_the_list_are_refused_and_start_nothing",
        ),
    ),
    "an observer that wants to be a peer": (
        *_attacks("an_observer_does_nothing_that_only_a_peer_may"),
        *_those(
            "cli/test_observer.py::test_an_observer_that_wants_more_than_to_ask_the_service_is_cut_off",
            "wire/test_session.py::test_an_observer_asks_and_is_answered_and_no_more",
        ),
    ),
    "who does not read": _those(
        "system/test_crowds.py::test_an_observer_that_reads_nothing_slows_nobody_and_is_sent_away",
        "system/test_crowds.py::test_a_peer_that_hardly_reads_slows_nobody_and_costs_a_bounded_outbox",
    ),
    "guessing the token of the pages": _those(
        "dashboard/test_visitors.py::test_who_guesses_tokens_has_to_wait_and_nobody_else",
        "dashboard/test_visitors.py::test_of_very_many_who_guess_some_are_forgotten",
    ),
    "connections to the pages that are kept": _those(
        "dashboard/test_visitors.py::test_who_opens_too_many_connections_loses_its_own",
        "dashboard/test_visitors.py::test_a_connection_that_asks_for_nothing_is_closed",
        "dashboard/test_pages.py::test_who_sends_half_a_request_and_no_more_is_hung_up_on",
    ),
    "a page of another site": _those(
        "dashboard/test_pages.py::test_no_page_of_another_site_may_ask_for_anything",
    ),
    "words that control a terminal": _those(
        "wire/test_handshake.py::test_an_explanation_from_outside_cannot_control_a_terminal"
    ),
}
