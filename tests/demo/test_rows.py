"""The generator's rows, and rows read from a file."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import pytest

from ledger.catalog import Catalog
from ledger.demo.rows import CITIES, FEWEST, ROWS, generate, read_rows
from ledger.errors import InputError
from ledger.record import normal_row
from ledger.workspace import known_catalogs

ROW_COUNT = 5000
ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return known_catalogs(None)["registration"].catalog


@pytest.fixture(scope="module")
def generated() -> list[dict[str, str]]:
    return generate()


def test_five_thousand_rows_of_different_codes_and_names(generated: list[dict[str, str]], catalog: Catalog) -> None:
    assert len(generated) == ROW_COUNT == ROWS
    assert len({row["uscc"] for row in generated}) == ROW_COUNT
    assert len({row["name"] for row in generated}) == ROW_COUNT
    assert all(set(row) == set(catalog.by_name) for row in generated)


def test_the_same_seed_gives_the_same_rows_and_another_one_others(generated: list[dict[str, str]]) -> None:
    assert generate(100) == generated[:100]
    assert generate(100, seed=1) != generated[:100]


def test_codes_of_taken_companies_are_not_given_again(generated: list[dict[str, str]]) -> None:
    taken = {generated[0]["uscc"], generated[7]["uscc"]}
    assert not taken & {row["uscc"] for row in generate(100, taken=taken)}


def test_every_code_is_valid_and_fits_its_row(generated: list[dict[str, str]]) -> None:
    for row in generated:
        code = row["uscc"]
        weighed = sum(ALPHABET.index(c) * pow(3, at, 31) for at, c in enumerate(code[:17]))
        assert (weighed + ALPHABET.index(code[17])) % 31 == 0, code
        organisation = sum(int(c, 36) * w for c, w in zip(code[8:16], (3, 7, 9, 10, 5, 8, 4, 2), strict=True))
        assert "0123456789X".index(code[16]) == -organisation % 11, code
        assert code[0] == "9"
        assert code[1] == ("3" if row["name"].endswith("合作社") else "1")
        assert code[2:8] == CITIES[row["region"]] + "00"


def test_all_cities_units_and_unknown_capitals_occur(generated: list[dict[str, str]]) -> None:
    assert {row["region"] for row in generated} == set(CITIES)
    assert len(CITIES) == 21
    assert {row["province"] for row in generated} == {"广东"}
    capitals = [row["capital"] for row in generated]
    for piece in ("(万元人民币)", "(万美元)", "（万元）", ",", "."):
        assert any(piece in capital for capital in capitals), piece
    assert "N/A" in capitals


def test_names_are_of_companies_and_cooperatives_and_dates_are_real(generated: list[dict[str, str]]) -> None:
    for row in generated:
        assert row["name"].endswith(("公司", "合作社")), row
        assert date(1985, 1, 1) <= date.fromisoformat(row["registered_on"]) < date(2025, 1, 1)


def test_generated_rows_are_in_normal_form_and_public_subjects(
    generated: list[dict[str, str]], catalog: Catalog
) -> None:
    for row in generated:
        assert normal_row(catalog, row) == row
        assert catalog.is_public(row["uscc"])


def write(path: Path, header: list[str], rows: int) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        # A date in another of its forms: it must come back in the normal one.
        writer.writerows(["2003/04/05" if t == "注册日期" else f"{t}{at}" for t in header] for at in range(rows))
    return path


def test_a_file_gives_its_first_rows_and_other_columns_are_left_out(tmp_path: Path, catalog: Catalog) -> None:
    titles = [field.title or "" for field in catalog.fields]
    path = write(tmp_path / "rows.csv", ["来源", *reversed(titles)], FEWEST + 5)
    rows = read_rows(path, catalog, FEWEST)
    assert len(rows) == FEWEST
    expected = {field.name: f"{field.title}3" for field in catalog.fields}
    assert rows[3] == expected | {"registered_on": "2003-04-05"}


def test_a_file_without_a_column_with_few_rows_or_not_there_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    titles = [field.title or "" for field in catalog.fields]
    for name, path in {
        "demo.rows_columns": write(tmp_path / "a.csv", titles[1:], FEWEST),
        "demo.rows_few": write(tmp_path / "b.csv", titles, FEWEST - 1),
        "demo.rows_file": tmp_path / "none.csv",
    }.items():
        with pytest.raises(InputError) as caught:
            read_rows(path, catalog)
        assert caught.value.code == name


@pytest.mark.parametrize("line", ["only one cell", "91,x,2003-02-30,x,x,x,x", ",x,2003-02-03,x,x,x,x"])
def test_a_row_that_is_cut_off_or_unreadable_is_refused(line: str, tmp_path: Path, catalog: Catalog) -> None:
    titles = [field.title or "" for field in catalog.fields]
    path = write(tmp_path / "rows.csv", titles, FEWEST)
    path.write_text(path.read_text("utf-8") + line + "\r\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_rows(path, catalog)
    assert caught.value.code == "demo.rows_row"
    assert caught.value.where.endswith(f":{FEWEST + 2}")
