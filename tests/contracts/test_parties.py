"""Names, accounts and roles of AnchorRegistry: who may do what, and every attack on it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.reverts import Refused

from .conftest import World, claim

ADMIN = bytes(32)


def refused(world: World, sender: int, name: str, *values: Any) -> tuple[str, tuple[Any, ...]]:
    """The named error, with its values, by which the contract refuses."""
    with pytest.raises(Refused) as caught:
        world.act(sender, name, *values)
    return caught.value.revert.name, caught.value.revert.values


def test_the_deployer_is_the_registrar_and_nobody_else_is(world: World) -> None:
    assert world.ask("hasRole", ADMIN, world.accounts[0]) == (True,)
    assert world.ask("hasRole", ADMIN, world.accounts[1]) == (False,)
    assert world.ask("getRoleAdmin", ADMIN) == (ADMIN,)


def test_the_code_on_chain_is_the_artefacts(world: World) -> None:
    code = bytes.fromhex(world.tester.get_code(world.contract)[2:])
    assert hashlib.sha256(code).hexdigest() == anchor_registry().code_sha256


def test_a_registered_party_has_name_account_role_and_position(world: World) -> None:
    receipt = world.act(0, "register", name_to_word("guangdong"), world.accounts[1])
    assert world.ask("parties") == ([name_to_word("guangdong")],)
    ((account, position, block, time),) = world.ask("holdings", name_to_word("guangdong"))[0]
    assert (account, position, block) == (world.accounts[1], 1, receipt["block_number"])
    assert time == world.tester.get_block_by_number(block)["timestamp"]
    assert world.ask("nameOf", world.accounts[1]) == (name_to_word("guangdong"),)
    assert world.ask("standing", name_to_word("guangdong")) == (world.accounts[1], False, 0)
    assert world.events(receipt, "Registered") == [
        (name_to_word("guangdong"), bytes(12) + bytes.fromhex(world.accounts[1][2:]), 1)
    ]


@pytest.mark.parametrize("sender", [1, 2, 5])
def test_only_the_registrar_registers(party: World, sender: int) -> None:
    assert refused(party, sender, "register", name_to_word("foshan"), party.accounts[6]) == (
        "AccessControlUnauthorizedAccount",
        (party.accounts[sender], ADMIN),
    )


@pytest.mark.parametrize("name", ["a", "z9", "guang-dong_1", "a" * 32, "x" + "-_09az"])
def test_a_name_in_the_right_form_is_registered(world: World, name: str) -> None:
    world.register(name, 1)
    assert world.ask("parties") == ([name.encode().ljust(32, b"\0")],)


@pytest.mark.parametrize(
    "word",
    [
        b"",
        b"1city",
        b"-city",
        b"_city",
        b"City",
        b"cITY",
        b"ci ty",
        b"ci.ty",
        b"ci\x00ty",
        b"\x00city",
        b"city\x7f",
        b"ci`ty",
        b"ci{ty",
        b"ci/ty",
        b"ci:ty",
        "市".encode(),
        b"a" * 31 + b"A",
    ],
)
def test_any_other_name_is_refused(world: World, word: bytes) -> None:
    padded = word.ljust(32, b"\0")
    assert refused(world, 0, "register", padded, world.accounts[1]) == ("InvalidName", (padded,))


def test_a_name_is_never_registered_twice(party: World) -> None:
    name = name_to_word("guangdong")
    assert refused(party, 0, "register", name, party.accounts[5]) == ("NameTaken", (name, party.accounts[1]))
    party.act(1, "move", party.accounts[5])
    assert refused(party, 0, "register", name, party.accounts[6]) == ("NameTaken", (name, party.accounts[5]))


def test_an_account_belongs_to_one_name_for_ever(party: World) -> None:
    name, other = name_to_word("guangdong"), name_to_word("foshan")
    assert refused(party, 0, "register", other, party.accounts[1]) == ("AccountUsed", (party.accounts[1], name))
    party.act(1, "move", party.accounts[5])
    for account in (1, 5):
        used = party.accounts[account]
        assert refused(party, 0, "register", other, used) == ("AccountUsed", (used, name))
        assert refused(party, 2, "move", used) == ("AccountUsed", (used, name))
    assert refused(party, 5, "move", party.accounts[1]) == ("AccountUsed", (party.accounts[1], name))
    assert refused(party, 5, "move", party.accounts[5]) == ("AccountUsed", (party.accounts[5], name))


def test_the_zero_account_is_refused(party: World) -> None:
    zero = "0x" + "00" * 20
    assert refused(party, 0, "register", name_to_word("foshan"), zero) == ("ZeroAccount", ())
    assert refused(party, 1, "move", zero) == ("ZeroAccount", ())


def test_the_holder_moves_its_name_and_the_history_stays(party: World) -> None:
    receipt = party.act(1, "move", party.accounts[5])
    held = party.ask("holdings", name_to_word("guangdong"))[0]
    assert [(row[0], row[1]) for row in held] == [(party.accounts[1], 1), (party.accounts[5], 3)]
    assert held[1][2] == receipt["block_number"]
    assert party.ask("standing", name_to_word("guangdong")) == (party.accounts[5], False, 0)
    assert party.ask("nameOf", party.accounts[1]) == (name_to_word("guangdong"),)
    ((name, old, new, position),) = party.events(receipt, "Moved")
    assert (name, old[12:].hex(), new[12:].hex(), position) == (
        name_to_word("guangdong"),
        party.accounts[1][2:],
        party.accounts[5][2:],
        3,
    )
    party.act(5, "anchor", [claim(b"d")])
    assert [row[4] for row in party.anchors("guangdong")] == [1]


def test_the_old_account_of_a_moved_name_may_do_nothing(party: World) -> None:
    party.act(1, "move", party.accounts[5])
    expected = ("NotHolder", (party.accounts[1], name_to_word("guangdong"), party.accounts[5]))
    assert refused(party, 1, "anchor", [claim(b"d")]) == expected
    assert refused(party, 1, "move", party.accounts[6]) == expected


def test_the_registrar_cannot_give_a_moved_name_back_to_its_old_account(party: World) -> None:
    party.act(1, "move", party.accounts[5])
    party.act(0, "suspend", name_to_word("guangdong"))
    party.act(0, "reinstate", name_to_word("guangdong"))
    party.act(0, "grantRole", ADMIN, party.accounts[1])
    expected = ("NotHolder", (party.accounts[1], name_to_word("guangdong"), party.accounts[5]))
    assert refused(party, 1, "anchor", [claim(b"d")]) == expected
    assert refused(party, 1, "move", party.accounts[6]) == expected


@pytest.mark.parametrize("role", [ADMIN, hashlib.sha256(b"any other role").digest()])
def test_a_role_without_a_name_permits_nothing(party: World, role: bytes) -> None:
    party.act(0, "grantRole", role, party.accounts[7])
    assert refused(party, 7, "anchor", [claim(b"d")]) == ("NoName", (party.accounts[7],))
    assert refused(party, 7, "move", party.accounts[8]) == ("NoName", (party.accounts[7],))


def test_the_registrar_can_neither_move_a_name_nor_anchor(party: World) -> None:
    assert refused(party, 0, "move", party.accounts[6]) == ("NoName", (party.accounts[0],))
    assert refused(party, 0, "anchor", [claim(b"d")]) == ("NoName", (party.accounts[0],))


def test_a_suspended_holder_neither_anchors_nor_escapes_by_moving(party: World) -> None:
    name = name_to_word("guangdong")
    party.act(1, "anchor", [claim(b"before")])
    receipt = party.act(0, "suspend", name)
    assert party.events(receipt, "Suspension") == [(name, bytes(12) + bytes.fromhex(party.accounts[1][2:]), True)]
    assert party.ask("standing", name) == (party.accounts[1], True, 1)
    suspended = ("Suspended", (party.accounts[1], name))
    # Not even what would change nothing.
    for claims in ([claim(b"d")], [claim(b"before")], []):
        assert refused(party, 1, "anchor", claims) == suspended
    assert refused(party, 1, "move", party.accounts[5]) == suspended
    party.act(2, "anchor", [claim(b"d")])
    receipt = party.act(0, "reinstate", name)
    assert party.events(receipt, "Suspension") == [(name, bytes(12) + bytes.fromhex(party.accounts[1][2:]), False)]
    party.act(1, "anchor", [claim(b"d")])
    assert len(party.anchors("guangdong")) == 2


def test_a_suspension_takes_no_position_and_changes_nothing_that_was_anchored(party: World) -> None:
    party.act(1, "anchor", [claim(b"a")])
    before = party.ask("position"), party.anchors("guangdong"), party.ask("holdings", name_to_word("guangdong"))
    for name in ("suspend", "suspend", "reinstate", "reinstate"):
        party.act(0, name, name_to_word("guangdong"))
        assert (
            party.ask("position"),
            party.anchors("guangdong"),
            party.ask("holdings", name_to_word("guangdong")),
        ) == before


def test_a_moved_name_keeps_its_count_and_can_be_suspended_again(party: World) -> None:
    name = name_to_word("guangdong")
    party.act(1, "anchor", [claim(b"a"), claim(b"b")])
    party.act(1, "move", party.accounts[5])
    assert party.ask("standing", name) == (party.accounts[5], False, 2)
    party.act(0, "suspend", name)
    assert refused(party, 5, "anchor", [claim(b"d")]) == ("Suspended", (party.accounts[5], name))
    assert refused(party, 1, "anchor", [claim(b"d")]) == ("NotHolder", (party.accounts[1], name, party.accounts[5]))


@pytest.mark.parametrize("name", ["suspend", "reinstate"])
@pytest.mark.parametrize("sender", [1, 2, 7])
def test_only_the_registrar_suspends_and_reinstates(party: World, sender: int, name: str) -> None:
    assert refused(party, sender, name, name_to_word("guangdong")) == (
        "AccessControlUnauthorizedAccount",
        (party.accounts[sender], ADMIN),
    )


@pytest.mark.parametrize("name", ["suspend", "reinstate"])
def test_an_unknown_name_is_not_suspended(party: World, name: str) -> None:
    assert refused(party, 0, name, name_to_word("foshan")) == ("UnknownName", (name_to_word("foshan"),))
    party.register("foshan", 3)
    assert party.ask("standing", name_to_word("foshan")) == (party.accounts[3], False, 0)


def test_a_party_cannot_grant_roles(party: World) -> None:
    for name in ("grantRole", "revokeRole"):
        assert refused(party, 1, name, ADMIN, party.accounts[2]) == (
            "AccessControlUnauthorizedAccount",
            (party.accounts[1], ADMIN),
        )


def test_a_role_is_renounced_for_oneself_only(party: World) -> None:
    assert refused(party, 1, "renounceRole", ADMIN, party.accounts[0]) == ("AccessControlBadConfirmation", ())


@pytest.mark.parametrize("sender", [0, 1, 7])
def test_a_stranger_cannot_anchor(world: World, sender: int) -> None:
    assert refused(world, sender, "anchor", [claim(b"d")]) == ("NoName", (world.accounts[sender],))


@pytest.mark.parametrize("view", ["holdings", "anchors", "revisions", "lastRevision", "standing"])
def test_views_of_an_unknown_name_are_refused(party: World, view: str) -> None:
    name = name_to_word("foshan")
    about = {"anchors": (name, []), "revisions": (bytes(32), name), "lastRevision": (bytes(32), name)}
    values: tuple[Any, ...] = about.get(view, (name,))
    with pytest.raises(Refused) as caught:
        party.ask(view, *values)
    assert (caught.value.revert.name, caught.value.revert.values) == ("UnknownName", (name,))


def test_every_way_to_change_the_state_is_one_that_these_tests_attack() -> None:
    """No upgrade switch, no owner, no way that was forgotten here."""
    import json
    from importlib import resources

    abi = json.loads(resources.files("ledger.chain").joinpath("AnchorRegistry.json").read_text())["abi"]
    changing = {e["name"] for e in abi if e["type"] == "function" and e["stateMutability"] not in ("view", "pure")}
    assert changing == {"register", "suspend", "reinstate", "move", "anchor", "grantRole", "revokeRole", "renounceRole"}
    assert not [e for e in abi if e.get("stateMutability") == "payable" or e["type"] in ("fallback", "receive")]
