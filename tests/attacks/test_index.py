"""Every attack has its tests, and every test that is named exists; the document names none that does not."""

import re

import pytest

from tests.attacks.index import ATTACKS
from tests.listing import ROOT, gone

DOCUMENT = (ROOT / "docs" / "security.md").read_text()


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_test_of_an_attack_exists(attack: str):
    assert ATTACKS[attack] and not gone(ATTACKS[attack])


def test_the_document_names_tests_that_exist_and_one_for_each_attack():
    named = set(re.findall(r"{test}`(\S+)`", DOCUMENT))
    assert named and not gone(named)
    missing = [attack for attack, tests in ATTACKS.items() if not named & set(tests)]
    assert not missing, f"docs/security.md says nothing of: {missing}"
