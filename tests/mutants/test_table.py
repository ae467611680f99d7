"""Every mutant is one that can be made, and has its test; every guarantee has its mutants."""

import ast

import pytest

from tests.listing import ROOT, gone
from tests.mutants.table import GUARANTEES, MUTANTS, Mutant


def test_every_guarantee_is_broken_and_no_other():
    assert {mutant.guarantee for mutant in MUTANTS} == GUARANTEES.keys()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_can_be_made_and_has_its_test(mutant: Mutant):
    source = (ROOT / "src" / "kinfolk" / mutant.file).read_text()
    assert source.count(mutant.old) == 1, f"{mutant.file} has changed: what the mutant changes must stand there once"
    changed = source.replace(mutant.old, mutant.new)
    assert changed != source
    ast.parse(changed)
    assert not gone([mutant.test])
