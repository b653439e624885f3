"""Rows of catalog `registration` for the demonstration: from a file of real ones, else generated ones of that shape.

Generated companies are made up: no natural person is in them, and a likeness to a real company is chance.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ledger.catalog import Catalog
from ledger.demo.codes import credit_code
from ledger.errors import InputError
from ledger.record import Unreadable, normal_row

Row = dict[str, str]
"""Field name of the catalog to value, as it would stand in a CSV."""

ROWS = 5000
FEWEST = 300
"""The story needs rows for three deliveries and for every kind of damage."""
SEED = 20260401

# City and the first four digits of its GB/T 2260 codes; the capital holds most of the companies, as in real files.
CITIES = {
    "广州": "4401", "韶关": "4402", "深圳": "4403", "珠海": "4404", "汕头": "4405", "佛山": "4406", "江门": "4407",
    "湛江": "4408", "茂名": "4409", "肇庆": "4412", "惠州": "4413", "梅州": "4414", "汕尾": "4415", "河源": "4416",
    "阳江": "4417", "清远": "4418", "东莞": "4419", "中山": "4420", "潮州": "4451", "揭阳": "4452", "云浮": "4453",
}  # fmt: skip
_WEIGHTS = [60, *(1 if city not in ("深圳", "佛山", "东莞") else 6 for city in list(CITIES)[1:])]
_BRAND_FIRST = "宏恒瑞鼎盛兴泰嘉隆裕华诚"
_BRAND_SECOND = "达丰源通鑫业昌茂信晟远展"
_TRADES = (
    "贸易", "实业", "电子科技", "机械设备", "建筑工程", "物流", "食品", "服装", "化工", "塑料制品", "五金制品", "环保科技",
    "信息技术", "房地产开发", "广告", "汽车服务", "医疗器械", "包装材料", "印刷", "物业管理",
)  # fmt: skip
_CROPS = ("荔枝", "龙眼", "蔬菜", "茶叶", "水稻", "柑橘", "花卉", "水产")
_UNITS = ("(万元人民币)", "(万人民币元)", "（万元）", "(万美元)", "(万港元)", "(万元(人民币))", "万人民币")
_UNIT_WEIGHTS = (36, 38, 10, 5, 4, 3, 2)
_TYPES = (
    "N/A",
    "有限责任公司",
    "有限责任公司(自然人投资或控股)",
    "有限责任公司(法人独资)",
    "股份有限公司",
    "集体所有制",
)
_COOPERATIVE = "农民专业合作社"


def generate(count: int = ROWS, seed: int = SEED, taken: Collection[str] = ()) -> list[Row]:
    """`count` rows with different codes and names, none of the codes in `taken`; the same seed gives the same rows."""
    # Made-up companies need no secret randomness, but the same ones every time.
    dice = random.Random(seed)  # noqa: S311
    codes, names = set(taken), set()
    rows: list[Row] = []
    for row in _endless(dice):
        if len(rows) == count:
            break
        if row["uscc"] not in codes and row["name"] not in names:
            codes.add(row["uscc"])
            names.add(row["name"])
            rows.append(row)
    return rows


def _endless(dice: random.Random) -> Iterator[Row]:
    while True:
        city = dice.choices(list(CITIES), _WEIGHTS)[0]
        cooperative = dice.random() < 0.02
        brand = dice.choice(_BRAND_FIRST) + dice.choice(_BRAND_SECOND)
        if cooperative:
            name = f"{city}市{brand}{dice.choice(_CROPS)}专业合作社"
        else:
            name = f"{city}市{brand}{dice.choice(_TRADES)}有限公司"
            if dice.random() < 0.03:
                name += f"{dice.choice(list(CITIES))}分公司"
        year = dice.randint(2008 if cooperative else 1985, 2024)
        yield {
            "uscc": credit_code("9", "3" if cooperative else "1", f"{CITIES[city]}00", _organisation(dice, year)),
            "name": name,
            "registered_on": f"{year}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}",
            "company_type": _COOPERATIVE if cooperative else dice.choices(_TYPES, (40, 20, 20, 12, 5, 3))[0],
            "capital": _capital(dice),
            "province": "广东",
            "region": city,
        }


def _organisation(dice: random.Random, year: int) -> str:
    # Since the reform of 2015 codes are given out from series that begin with MA.
    if year >= 2016:
        return "MA" + "".join(dice.choices("0123456789ABCDEFGHJKLMNPQRTUWXY", k=6))
    return f"{dice.choice('1267')}{dice.randrange(10**7):07}"


def _capital(dice: random.Random) -> str:
    if dice.random() < 0.09:
        return "N/A"
    amount = dice.choice((10, 30, 50, 50, 100, 100, 200, 500, 1000, 1280, 5000, 12800, dice.randint(11, 60000)))
    fraction = f".{dice.randint(1, 99):02}00" if dice.random() < 0.05 else ""
    return f"{amount:,}{fraction}{dice.choices(_UNITS, _UNIT_WEIGHTS)[0]}"


def read_rows(path: Path, catalog: Catalog, count: int = ROWS) -> list[Row]:
    """The first `count` rows of a CSV in UTF-8 whose headers are the catalog's titles, in normal form ("" is null).

    Other columns are left out. InputError `demo.rows_<rule>`: `file` (cannot be read), `columns` (lacks one), `row` (short,
    or not readable), `few` (fewer than FEWEST rows).
    """
    titles = {field.name: field.title or field.name for field in catalog.fields}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [title for title in titles.values() if title not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(
                    "demo.rows_columns",
                    f"缺少列：{'、'.join(lacking)}（DUIZHANG_DEMO_ROWS 指定的文件）",
                    f"the file named by DUIZHANG_DEMO_ROWS lacks the columns {', '.join(lacking)}",
                    str(path),
                )
            rows: list[Row] = []
            for row in reader:
                if len(rows) == count:
                    break
                rows.append(_read(row, titles, catalog, f"{path}:{reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise InputError(
            "demo.rows_file",
            f"DUIZHANG_DEMO_ROWS 指定的文件无法读取：{cause}",
            f"the file named by DUIZHANG_DEMO_ROWS cannot be read: {cause}",
            str(path),
        ) from cause
    if len(rows) < FEWEST:
        raise InputError(
            "demo.rows_few",
            f"只有 {len(rows)} 行，演示至少需要 {FEWEST} 行",
            f"{len(rows)} rows; the demonstration needs at least {FEWEST}",
            str(path),
        )
    return rows


def _read(row: Mapping[str, str | None], titles: Mapping[str, str], catalog: Catalog, where: str) -> Row:
    # Findings name keys in normal form; the story compares them with what it planted.
    values = normal_row(catalog, {name: row[title] for name, title in titles.items()})
    if isinstance(values, Unreadable) or None in (row[title] for title in titles.values()):
        zh, en = (values.zh, values.en) if isinstance(values, Unreadable) else ("列数不足", "the row is short")
        raise InputError("demo.rows_row", f"这一行不能用：{zh}", f"the row cannot be used: {en}", where)
    return {name: value or "" for name, value in values.items()}
